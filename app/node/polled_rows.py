"""The rows of a SHOW command that runs ten times a second: few of a thousand change each time.

So an answer is compared with the previous one in blocks of rows, as bytes, and only differences are
parsed.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from app.node.messages import HEADER, ROW, Row, column_names, message_end, row

T = TypeVar("T")

# So small that most blocks of a thousand rows stay the same while a dozen rows change.
_BLOCK = 8
# Rows of earlier answers that are kept.
_SPARE = 256


class PolledRows(Generic[T]):
    """The converted rows of the last answer."""

    def __init__(self, make: Callable[[Row], T]) -> None:
        self._make = make
        # Bytes of consecutive rows, and the converted rows.
        self._blocks: list[tuple[bytes, list[T]]] = []
        # By the bytes of one row; some are from earlier answers.
        self._made: dict[bytes, T] = {}

    def read(self, answer: bytes) -> Iterator[list[T]]:
        """Yield the converted rows of a complete *answer*, some at a time.

        A row that was in the last answer is not parsed again.
        """
        at = message_end(answer, 0)
        names = column_names(answer[HEADER.size : at])
        former, blocks = iter(self._blocks), list[tuple[bytes, list[T]]]()
        while answer.startswith(ROW, at):
            block = next(former, None)
            if block is None or not answer.startswith(block[0], at):
                block = self._block(names, answer, at)
            at += len(block[0])
            blocks.append(block)
            yield block[1]
        self._blocks = blocks
        if len(self._made) > _BLOCK * len(blocks) + _SPARE:
            self._made.clear()

    def _block(self, names: list[str], answer: bytes, begin: int) -> tuple[bytes, list[T]]:
        at, values = begin, list[T]()
        while len(values) < _BLOCK and answer.startswith(ROW, at):
            end = message_end(answer, at)
            message = answer[at:end]
            if message not in self._made:
                self._made[message] = self._make(row(names, message[HEADER.size :]))
            values.append(self._made[message])
            at = end
        return answer[begin:at], values
