"""Long work in short steps: between two steps the event loop runs other tasks."""

import asyncio
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# A step takes about a millisecond: this many characters, and some more for each piece.
_CHARACTERS_PER_STEP = 64 * 1024
_CHARACTERS_PER_PIECE = 64


async def finish(steps: Generator[object, None, T]) -> T:
    """Run *steps* and return their result, with a pause at each yield."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        await asyncio.sleep(0)


def in_steps(rows: Sequence[bytes], *, pieces: int) -> Iterator[Sequence[bytes]]:
    """Split *rows*, each of *pieces* pieces, into parts of one step.

    A larger row is a part by itself.
    """
    per_row = pieces * _CHARACTERS_PER_PIECE
    if sum(map(len, rows)) + per_row * len(rows) <= _CHARACTERS_PER_STEP:
        yield rows
        return
    begin = work = 0
    for number, row in enumerate(rows):
        more = len(row) + per_row
        if work + more > _CHARACTERS_PER_STEP and number > begin:
            yield rows[begin:number]
            begin, work = number, 0
        work += more
    yield rows[begin:]


class DocumentTooLarge(Exception):
    """The document is longer than allowed."""


class PieceJoiner:
    """Joins the pieces of one document after another; an empty piece asks for a pause."""

    def __init__(self) -> None:
        self._work = 0

    async def join(self, pieces: Iterable[str], *, max_bytes: float = math.inf) -> bytes:
        """Join the document, in UTF-8.

        Raises:
            DocumentTooLarge: it is longer than *max_bytes*.
        """
        steps: list[bytes] = []
        step: list[str] = []
        work = self._work
        for piece in pieces:
            step.append(piece)
            work += _CHARACTERS_PER_PIECE + len(piece)
            if work >= _CHARACTERS_PER_STEP or not piece:
                work = 0
                steps.append("".join(step).encode())
                step.clear()
                max_bytes -= len(steps[-1])
                if max_bytes < 0:
                    raise DocumentTooLarge
                await asyncio.sleep(0)
        self._work = work
        steps.append("".join(step).encode())
        if len(steps[-1]) > max_bytes:
            raise DocumentTooLarge
        return b"".join(steps)
