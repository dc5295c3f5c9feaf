"""What the server sent in response to the messages of the extended query protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.wire.backend_messages import ResultField, ServerError, parameter_types, result_fields

# More rows than this become one value, for each takes memory of its own.
_ROWS_IN_PIECE = 1000
_LENGTH_BYTES = 4


@dataclass(slots=True)
class Reply:
    """What the server sent up to ReadyForQuery; of a statement that is described, since then.

    Attributes:
        parameter_description: of the statement, as it came; empty before it is described.
        row_description: the same, None if it returns no rows.
        rows: the last of the rows that were kept, each as it came: see `column_values`. They are
            all, unless there are many; then see `take_rows`.
        is_truncated: whether rows came that were too large to be kept, and are not in *rows*.
        command_tag: the command tag once it is complete.
        is_copy: whether it is a COPY to or from its client.
        is_executed: whether it was executed, to its end or to the number of rows asked for; known
            only before an ending.
        transaction_status: of the transaction: I for none, T for open, E for failed.
        parameter_status: the settings that the server reported to have changed.
    """

    parameter_description: bytes = b""
    row_description: bytes | None = None
    rows: list[bytes] = field(default_factory=list)
    is_truncated: bool = False
    command_tag: str | None = None
    is_copy: bool = False
    is_executed: bool = False
    transaction_status: str = ""
    error: ServerError | None = None
    parameter_status: dict[str, str] = field(default_factory=dict)
    _pieces: list[bytes] = field(default_factory=list)

    def keep(self, row: bytes) -> None:
        """Keep a row, as it came."""
        self.rows.append(row)
        if len(self.rows) == _ROWS_IN_PIECE:
            self._pieces.append(_joined(self.rows))
            self.rows = []

    @property
    def row_count(self) -> int:
        """How many rows are kept."""
        return len(self._pieces) * _ROWS_IN_PIECE + len(self.rows)

    def take_rows(self) -> Iterator[list[bytes]]:
        """All rows that are kept, some at a time: they are gone then."""
        pieces, self._pieces = self._pieces, []
        pieces.reverse()
        while pieces:
            yield _split(pieces.pop())
        rows, self.rows = self.rows, []
        yield rows

    def parameters(self) -> tuple[int, ...]:
        """The types of the statement's parameters, as oids."""
        return parameter_types(self.parameter_description) if self.parameter_description else ()

    def fields(self) -> tuple[ResultField, ...]:
        """The statement's columns."""
        return () if self.row_description is None else result_fields(self.row_description)


def _joined(rows: list[bytes]) -> bytes:
    return b"".join([len(row).to_bytes(_LENGTH_BYTES, "big") + row for row in rows])


def _split(piece: bytes) -> list[bytes]:
    rows, at = [], 0
    while at < len(piece):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(piece[at:begin], "big")
        rows.append(piece[begin:at])
    return rows
