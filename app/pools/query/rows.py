"""The rows of a statement as JSON: fetched in batches, never more than fit into a response."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

from app.domain.errors import StatementEndedLease, StatementFailed
from app.pools.query.pacing import DocumentTooLarge, PieceJoiner, finish, in_steps
from app.pools.query.pg_json import column_to_json, decode, formatter_of, to_json
from app.pools.query.pg_records import AnonymousRecords, Tree
from app.pools.query.pg_types import RECORDS, PgType
from app.pools.query.too_large import results_too_large, row_too_large
from app.wire.backend_messages import column_values
from app.wire.extended_query import ExtendedQuery
from app.wire.frontend_messages import BINARY, TEXT, bind, close, execute
from app.wire.reply import Reply

MAX_BYTES = 8 * 1024 * 1024
"""The limit for all rows that a request returns, as JSON."""

FIRST_ROWS = 10
"""The size of the first batch, whose rows may be of any size; many results have no more rows."""

# Rows are fetched in batches, so that a long result blocks nobody, and never more of them than fit
# into a response.
_MAX_BATCH_ROWS = 100
_MAX_BATCH_BYTES = 1024 * 1024
# A longer row is made of pieces, whatever its types.
_LONG_ROW_BYTES = 64 * 1024
# More rows than this become one piece of the result, because each piece takes memory.
_ROWS_IN_PIECE = 1000
PORTAL = "__poolkeeper_portal"
_CLOSE_PORTAL = close(portal=PORTAL)

# The formats of values that the server reports; a statement may change them while it runs.
_REPORTED = {"DateStyle": "ISO", "IntervalStyle": "postgres", "client_encoding": "UTF8"}
# Command tags of statements that end a transaction, even if they begin another one at once.
_TRANSACTION_ENDS = frozenset({"COMMIT", "ROLLBACK", "PREPARE TRANSACTION"})

Formatter: TypeAlias = Callable[[str], str]
_Value: TypeAlias = "bytes | Tree | None"


class Rows:
    """The rows of one statement.

    Attributes:
        written: JSON arrays or objects in UTF-8; each piece has one, or several joined by commas.
        count: number of arrays or objects.
        size: their size in bytes.
        truncated: whether there were more rows.
    """

    def __init__(
        self,
        query: ExtendedQuery,
        types: Sequence[PgType],
        *,
        max_rows: int | None,
        max_bytes: int,
        keys: Sequence[str] | None = None,
    ) -> None:
        """Write up to *max_rows* rows that fit into *max_bytes*; None: all rows, or fail.

        *types* are the types of the columns. With *keys*, each a JSON string and a colon, rows are
        objects.
        """
        self.written: list[bytes] = []
        self.count = self.size = 0
        self.truncated = False
        self._query = query
        self._types = types
        self._has_records = not RECORDS.isdisjoint(each.oid for each in types)
        # None if a value is made of pieces.
        formatters = [None if each.oid in RECORDS else formatter_of(each) for each in types]
        self._formatters = None if None in formatters else cast("list[Formatter]", formatters)
        self._needs_all = max_rows is None
        self._max_rows = sys.maxsize if max_rows is None else max_rows
        self._max_bytes = max_bytes
        self._keys = keys
        # The pieces at the beginning that contain many rows.
        self._joined = 0
        self._opening, self._closing = ("[", "]") if keys is None else ("{", "}")
        self._joiner = PieceJoiner()
        self._records = AnonymousRecords(query, self._joiner)

    async def fetch(self, values: Sequence[bytes | None], *, is_query: bool) -> str | None:
        """Execute the prepared statement with *values*; return the command tag if it ended.

        Raises:
            StatementEndedLease: it ended the transaction.
            StatementFailed: a row cannot be returned, or not all rows.
            ServerError, OSError: from the query.
        """
        formats: Sequence[int] = (TEXT,)
        if self._has_records and is_query:
            formats = [BINARY if each.oid in RECORDS else TEXT for each in self._types]
        messages = first_execution(values, result_formats=formats, max_rows=self._max_rows)
        first = await self._query.exchange(*messages, max_row_bytes=self._max_bytes)
        return await self.take(first, is_query=is_query)

    async def take(self, reply: Reply, *, is_query: bool) -> str | None:
        """Take the rows from the *reply* to the first execution, and fetch the others.

        Returns and raises as `fetch`.
        """
        largest = 1
        while True:
            if reply.transaction_status == "I" or reply.command_tag in _TRANSACTION_ENDS:
                raise StatementEndedLease(
                    "The statement ended the transaction: what ran before it may be committed."
                )
            if reply.row_count:
                _check_forms(reply.parameter_status)
            is_over = reply.command_tag is not None or not is_query
            if not is_over:
                largest = max([largest, *map(len, reply.rows)])
            await self._append(reply)
            if is_over or self.truncated:
                return reply.command_tag
            fitting = max(1, _MAX_BATCH_BYTES // largest)
            count = min(_MAX_BATCH_ROWS, fitting, self._max_rows + 1 - self.count)
            reply = await self._query.exchange(
                execute(portal=PORTAL, max_rows=count), max_row_bytes=self._max_bytes - self.size
            )

    async def _append(self, reply: Reply) -> None:
        """Write the rows of *reply*, and drop them one by one: freeing many at once takes long."""
        has_more = reply.row_count > self._max_rows - self.count
        try:
            for rows in reply.take_rows():
                await self._write(rows[: self._max_rows - self.count])
        except DocumentTooLarge:
            self._truncate()
            return
        if has_more:
            self.truncated = True
        elif reply.is_truncated:
            self._truncate()

    async def _write(self, rows: Sequence[bytes]) -> None:
        """Raises DocumentTooLarge at the first row that does not fit."""
        for step in in_steps(rows, pieces=len(self._types)):
            if self.written:
                await asyncio.sleep(0)
            is_long = len(step) == 1 and len(step[0]) > _LONG_ROW_BYTES
            if self._formatters is None or is_long:
                await self._write_in_pieces(step)
            else:
                self._keep(self._short_documents(step, self._formatters))

    async def _write_in_pieces(self, rows: Sequence[bytes]) -> None:
        split: list[list[_Value]] = [list(column_values(row)) for row in rows]
        if self._has_records:
            await self._read_records(split)
        for row in split:
            room = self._max_bytes - self.size
            self._keep([await self._joiner.join(self._pieces(row), max_bytes=room)])

    def _short_documents(
        self, rows: Sequence[bytes], formatters: Sequence[Formatter]
    ) -> Sequence[bytes]:
        """The documents of rows that are one step's work."""
        values = zip(*map(column_values, rows), strict=True)
        columns: list[Iterable[str]] = list(map(column_to_json, values, formatters))
        if not columns:  # also if there are no rows
            return [f"{self._opening}{self._closing}".encode()] * len(rows)
        if self._keys is not None:
            keyed = zip(self._keys, columns, strict=True)
            columns = [map(key.__add__, values) for key, values in keyed]
        return [
            f"{self._opening}{','.join(row)}{self._closing}".encode()
            for row in zip(*columns, strict=True)
        ]

    def _keep(self, documents: Sequence[bytes]) -> None:
        """Raises DocumentTooLarge at the first document that does not fit."""
        size = self.size + sum(map(len, documents))
        if size <= self._max_bytes:
            self.written.extend(documents)
            self.count += len(documents)
            self.size = size
            if len(self.written) - self._joined > _ROWS_IN_PIECE:
                self.written[self._joined :] = [b",".join(self.written[self._joined :])]
                self._joined += 1
            return
        for each in documents:
            if self.size + len(each) > self._max_bytes:
                raise DocumentTooLarge
            self.written.append(each)
            self.count += 1
            self.size += len(each)

    def _truncate(self) -> None:
        """Note that the next row does not fit."""
        if self._needs_all or (not self.written and self._max_bytes < MAX_BYTES):
            raise results_too_large()
        if not self.written:
            raise row_too_large()
        self.truncated = True

    async def _read_records(self, rows: Sequence[list[_Value]]) -> None:
        """Replace records by the values that they consist of."""
        for values in rows:
            for number, each in enumerate(self._types):
                value = values[number]
                if isinstance(value, bytes) and each.oid in RECORDS:
                    values[number] = await finish(self._records.read(value, each.oid))
        await self._records.resolve(max_bytes=MAX_BYTES)

    def _pieces(self, row: Sequence[_Value]) -> Iterator[str]:
        separator = self._opening
        for number, (value, each) in enumerate(zip(row, self._types, strict=True)):
            yield separator
            if self._keys is not None:
                yield self._keys[number]
            if isinstance(value, bytes):
                yield from to_json(decode(value), each)
            else:
                yield from self._records.pieces(value)
            separator = ","
        yield self._closing if row else self._opening + self._closing


def first_execution(
    values: Sequence[bytes | None],
    *,
    result_formats: Sequence[int] = (TEXT,),
    max_rows: int = sys.maxsize,
    is_only: bool = False,
) -> tuple[bytes, ...]:
    """Messages that execute the prepared statement with *values*, for the first of *max_rows* rows.

    *is_only*: the execution is for all rows.
    """
    # An earlier statement of the same transaction may have left its portal.
    return (
        _CLOSE_PORTAL,
        bind(values, portal=PORTAL, result_formats=result_formats),
        # One row more than may be returned, so that the last row comes together with the end.
        execute(portal=PORTAL, max_rows=0 if is_only else min(FIRST_ROWS, max_rows + 1)),
    )


def _check_forms(parameter_status: Mapping[str, str]) -> None:
    """Refuse rows in formats that the statement set for itself."""
    for name, value in parameter_status.items():
        if name in _REPORTED and value.partition(",")[0] != _REPORTED[name]:
            raise StatementFailed(
                f"The statement changes {name}, and its result cannot be read.", sqlstate="22023"
            )
