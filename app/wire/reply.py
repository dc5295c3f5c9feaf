"""A server's reply to messages of the extended query protocol."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.wire.backend_messages import ResultField, ServerError, parameter_types, result_fields

# More rows than this become one value, because each value takes memory.
_ROWS_IN_PIECE = 1000
_LENGTH_BYTES = 4


@dataclass(slots=True)
class Reply:
    """The messages up to ReadyForQuery; for a described statement, those since its description.

    Attributes:
        parameter_description: the statement's raw ParameterDescription; empty before it is
            described.
        row_description: its raw RowDescription; None if it returns no rows.
        rows: the last kept rows, unparsed: see `column_values`. These are all rows, unless there
            are many; then see `take_rows`.
        is_truncated: whether rows arrived that were too large to keep, and are missing in *rows*.
        command_tag: the command tag once it is complete.
        is_copy: whether it is a COPY to or from its client.
        is_executed: whether it was executed, to its end or to the requested number of rows; only
            known before an ending.
        transaction_status: I for no transaction, T for an open one, E for a failed one.
        parameter_status: settings that the server reported as changed.
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
        """Keep a row, unparsed."""
        self.rows.append(row)
        if len(self.rows) == _ROWS_IN_PIECE:
            self._pieces.append(_joined(self.rows))
            self.rows = []

    @property
    def row_count(self) -> int:
        """The number of kept rows."""
        return len(self._pieces) * _ROWS_IN_PIECE + len(self.rows)

    def take_rows(self) -> Iterator[list[bytes]]:
        """Yield all kept rows, some at a time, and drop them."""
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
