"""The query runner: one statement on a leased connection, from JSON values to rows of JSON.

Knows nothing of HTTP. The statement is prepared, so it is exactly one. Parameters and results
travel as text, so each is what Postgres itself reads and writes, and nothing of the statement's
types is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias

import asyncpg

from app.domain.errors import (
    LeaseLost,
    QueryTimeout,
    ReadOnly,
    SchemaChanged,
    StatementEndedLease,
    StatementFailed,
)
from app.pools import driver
from app.pools.query.pacing import DocumentTooLarge, PieceJoiner, finish
from app.pools.query.pg_json import decode, formatter_of, to_json
from app.pools.query.pg_literals import literal
from app.pools.query.pg_records import AnonymousRecords, Tree
from app.pools.query.pg_types import RECORD, RECORD_ARRAY, PgType, look_up_types
from app.wire.extended_query import (
    BINARY,
    TEXT,
    CopyAttempted,
    ExtendedQuery,
    Reply,
    ServerError,
    bind,
    close,
    column_values,
    describe,
    execute,
    parse,
)

# Seconds. The server cancels the statement first; we do so this much later, and terminate the
# connection if the statement does not end within the deadline.
_GRACE = 1.0
_CANCEL_DEADLINE = 2.0
# The server counts whole milliseconds, we do not.
_ROUNDING = 0.002
# Rows are fetched in batches, so that a long result holds up nobody, and never more of them than
# fit into a response.
_MAX_BATCH_ROWS = 100
# Of the first batch, whose rows may be of any size: many results are no longer.
_FIRST_ROWS = 10
# A row of so many bytes is made at once, if no value of it needs pieces.
_SHORT_ROW_BYTES = 4096
_MAX_BATCH_BYTES = 1024 * 1024
_MAX_BYTES = 8 * 1024 * 1024
# Parameters of more parts than this become text in another thread.
_MAX_INLINE_PARTS = 2000
_PORTAL = "poolkeeper"
_RECORDS = frozenset({RECORD, RECORD_ARRAY})

# The forms of values that read back exactly, whatever the role or the database prefers; and NULL
# is no string in an array. With ISO alone the order of day and month in what is read stays the
# tenant's.
OUTPUT_SETTINGS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "array_nulls": "on",
}
_SET = "select " + ", ".join(
    f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in OUTPUT_SETTINGS.items()
)
# Before each statement, and around its preparation and execution.
_SET_FORMS = parse(_SET) + bind() + execute()
_DESCRIBE, _CLOSE_PORTAL = describe(), close(portal=_PORTAL)
# Of the forms, what the server reports; a statement may change them while it runs.
_REPORTED = {"DateStyle": "ISO", "IntervalStyle": "postgres", "client_encoding": "UTF8"}
_CANCELLED = "canceling statement due to user request"
# Command tags of statements that end a transaction, even if they begin another at once.
_TRANSACTION_ENDS = frozenset({"COMMIT", "ROLLBACK", "PREPARE TRANSACTION"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultColumn:
    name: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementResult:
    """What a statement returned.

    Attributes:
        rows: each a JSON array, in UTF-8.
        row_count: rows returned, or changed by a statement that returns none.
        truncated: whether there were more rows than asked for, or than fit into a response.
        status: Postgres' command tag, None for a statement that returns columns.
    """

    columns: tuple[ResultColumn, ...]
    rows: tuple[bytes, ...]
    row_count: int
    truncated: bool
    status: str | None


class Query:
    """One statement, to be run once."""

    def __init__(
        self, sql: str, params: Sequence[object], *, max_rows: int, timeout: float
    ) -> None:
        """Run *sql* with *params*, JSON values, and fetch up to *max_rows* rows.

        A string binds to a parameter of any type through its text form. Numbers that are no int
        keep the digits that their `str` shows. *timeout* is in seconds.

        Raises:
            StatementFailed: Postgres takes no such text.
        """
        _encode(sql, "The statement")
        self._preparation = _SET_FORMS, parse(sql), _DESCRIBE
        self._params = params
        self._max_rows = max_rows
        self._timeout = timeout
        self._begun: ExtendedQuery | None = None

    async def begin(self, connection: asyncpg.Connection, statements: str) -> None:
        """Begin a lease by *statements*, and prepare the query in the same round trip.

        Raises:
            asyncpg.PostgresError, OSError: they failed.
        """
        query = ExtendedQuery(connection)
        try:
            await query.begin(statements, *self._preparation)
        except ServerError as error:
            raise asyncpg.PostgresError.new(error.fields) from error
        self._begun = query

    async def run(self, connection: asyncpg.Connection) -> StatementResult:
        """Run it on a leased *connection*, where it may have begun.

        Raises:
            StatementFailed: Postgres refused it, or a parameter or a result does not fit.
            StatementConflict: another transaction was in its way.
            StatementEndedLease: it ended the transaction.
            SchemaChanged: its types changed meanwhile.
            ReadOnly: it writes and the lease is read-only.
            QueryTimeout: it ran longer than its timeout.
            LeaseLost: the connection broke.
        """
        async with _extended_query(connection, self._begun, self._timeout) as query:
            if self._begun is None:
                prepared = await query.exchange(*self._preparation)
            else:
                prepared = await query.receive()
            if len(prepared.parameters) != len(self._params):
                raise StatementFailed(
                    f"The statement takes {len(prepared.parameters)} parameters, "
                    f"{len(self._params)} were given.",
                    sqlstate="08P01",
                )
            fields = prepared.fields or ()
            oids = {*prepared.parameters, *(each.oid for each in fields)}
            types = await look_up_types(query, oids)
            values = await _parameters(self._params, [types[oid] for oid in prepared.parameters])
            rows = _Rows(query, [types[each.oid] for each in fields], self._max_rows)
            tag = await rows.fetch(values, is_query=prepared.fields is not None)
        count, status = len(rows.written), None
        if prepared.fields is None:
            last = (tag or "").rpartition(" ")[2]
            count, status = int(last) if last.isdigit() else 0, tag
        elif not fields and not rows.truncated:
            command = (tag or "").rpartition(" ")[0]
            status = f"{command} {count}"  # Postgres' own is of the last batch
        return StatementResult(
            columns=tuple(
                ResultColumn(name=each.name, type=types[each.oid].name) for each in fields
            ),
            rows=tuple(rows.written),
            row_count=count,
            truncated=rows.truncated,
            status=status,
        )


async def _parameters(params: Sequence[object], types: Sequence[PgType]) -> list[bytes | None]:
    def literals() -> list[bytes | None]:
        encoded: list[bytes | None] = []
        room = _MAX_BYTES
        for text in map(literal, params, types):
            encoded.append(None if text is None else _encode(text, "A parameter"))
            room -= len(encoded[-1] or b"")
            # A literal may be many times as long as its JSON.
            if room < 0:
                raise StatementFailed("The parameters are too large.", sqlstate="54000")
        return encoded

    return await asyncio.to_thread(literals) if _have_many_parts(params) else literals()


def _have_many_parts(params: Sequence[object]) -> bool:
    remaining: list[object] = [params]
    parts = 0
    while remaining and parts <= _MAX_INLINE_PARTS:
        each = remaining.pop()
        parts += 1
        if isinstance(each, str):
            parts += len(each) // 100
        elif isinstance(each, dict):
            parts += len(each)
            remaining.extend(each.values())
        elif isinstance(each, Sequence):
            parts += len(each) // 2
            remaining.extend(each)
    return parts > _MAX_INLINE_PARTS


_Value: TypeAlias = "bytes | Tree"


class _Rows:
    """The rows of a statement as JSON, never more than fit into a response."""

    def __init__(self, query: ExtendedQuery, types: Sequence[PgType], max_rows: int) -> None:
        self.written: list[bytes] = []
        self.truncated = False
        self._query = query
        self._types = types
        # None where a value is made of pieces.
        self._formatters = [None if each.oid in _RECORDS else formatter_of(each) for each in types]
        self._max_rows = max_rows
        self._size = 0
        self._joiner = PieceJoiner()
        self._records = AnonymousRecords(query, self._joiner)

    async def fetch(self, values: Sequence[bytes | None], *, is_query: bool) -> str | None:
        """Execute the prepared statement with *values*; the command tag if it came to its end."""
        formats = [BINARY if each.oid in _RECORDS else TEXT for each in self._types]
        # An earlier statement of the same transaction may have left its portal.
        messages = [
            _CLOSE_PORTAL,
            bind(values, portal=_PORTAL, result_formats=formats if is_query else (TEXT,)),
        ]
        # One more than may be shown, so that the last row comes together with the end.
        count, largest = min(_FIRST_ROWS, self._max_rows + 1), 1
        while True:
            reply = await self._query.exchange(
                *messages,
                execute(portal=_PORTAL, max_rows=count),
                max_row_bytes=_MAX_BYTES - self._size,
            )
            messages = []
            if reply.transaction_status == "I" or reply.command_tag in _TRANSACTION_ENDS:
                raise StatementEndedLease
            if reply.rows:
                _check_forms(reply.parameter_status)
            await self._append(reply)
            if reply.command_tag is not None or self.truncated or not is_query:
                return reply.command_tag
            largest = max([largest, *map(len, reply.rows)])
            fitting = max(1, _MAX_BATCH_BYTES // largest)
            count = min(_MAX_BATCH_ROWS, fitting, self._max_rows + 1 - len(self.written))

    async def _append(self, reply: Reply) -> None:
        rows: list[list[_Value]] = [list(column_values(row)) for row in reply.rows]
        if not _RECORDS.isdisjoint(each.oid for each in self._types):
            await self._read_records(rows)
        for raw, row in zip(reply.rows, rows, strict=True):
            if len(self.written) == self._max_rows:
                self.truncated = True
                return
            try:
                document = await self._document(row, is_short=len(raw) <= _SHORT_ROW_BYTES)
            except DocumentTooLarge:
                self._truncate()
                return
            self.written.append(document)
            self._size += len(document)
        if reply.is_truncated:
            self._truncate()

    def _truncate(self) -> None:
        """The next row does not fit; alone it would not either if there is none yet."""
        if not self.written:
            raise StatementFailed("A single row is too large to be shown.", sqlstate="54000")
        self.truncated = True

    async def _read_records(self, rows: Sequence[list[_Value]]) -> None:
        """Replace records by what they consist of."""
        for values in rows:
            for number, each in enumerate(self._types):
                value = values[number]
                if isinstance(value, bytes) and each.oid in _RECORDS:
                    values[number] = await finish(self._records.read(value, each.oid))
        await self._records.resolve(max_bytes=_MAX_BYTES)

    async def _document(self, row: Sequence[_Value], *, is_short: bool) -> bytes:
        room = _MAX_BYTES - self._size
        if not is_short or None in self._formatters:
            return await self._joiner.join(self._pieces(row), max_bytes=room)
        values = [
            "null" if value is None else formatter(decode(value))  # type: ignore[misc, arg-type]
            for value, formatter in zip(row, self._formatters, strict=True)
        ]
        document = await self._joiner.encode(f"[{','.join(values)}]", pieces=len(values))
        if len(document) > room:
            raise DocumentTooLarge
        return document

    def _pieces(self, row: Sequence[_Value]) -> Iterator[str]:
        separator = "["
        for value, each in zip(row, self._types, strict=True):
            yield separator
            if isinstance(value, bytes):
                yield from to_json(decode(value), each)
            else:
                yield from self._records.pieces(value)
            separator = ","
        yield "]" if row else "[]"


def _check_forms(parameter_status: Mapping[str, str]) -> None:
    """Refuse rows in forms that the statement set for itself."""
    for name, value in parameter_status.items():
        if name in _REPORTED and value.partition(",")[0] != _REPORTED[name]:
            raise StatementFailed(
                f"The statement changes {name}, and its result cannot be read.", sqlstate="22023"
            )


def _encode(text: str, what: str) -> bytes:
    """*text* for a server, which takes neither NUL nor half of a surrogate pair."""
    if "\x00" in text:
        raise StatementFailed(f"{what} contains a NUL character.", sqlstate="22021")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StatementFailed(f"{what} is not valid Unicode.", sqlstate="22021") from error


@asynccontextmanager
async def _extended_query(
    connection: asyncpg.Connection, begun: ExtendedQuery | None, timeout: float
) -> AsyncIterator[ExtendedQuery]:
    """The connection for one statement, whose failures become this project's errors."""
    began = monotonic()
    try:
        with begun or ExtendedQuery(connection) as query:
            try:
                async with asyncio.timeout(timeout + _GRACE):
                    yield query
            except TimeoutError as error:
                await query.wait_idle(_CANCEL_DEADLINE)
                raise _timed_out(timeout) from error
    except CopyAttempted as error:
        raise StatementFailed("COPY is not supported here.", sqlstate="0A000") from error
    except ServerError as error:
        raise _failure(error, timeout, monotonic() - began) from error
    except OSError as error:
        raise LeaseLost from error


def _timed_out(timeout: float) -> QueryTimeout:
    return QueryTimeout(f"The statement ran longer than {timeout:g} s.")


def _failure(error: ServerError, timeout: float, elapsed: float) -> Exception:
    """What the server's error means.

    The SQLSTATE is not enough, since a function may raise any: the routine that raised it counts.
    """
    if error.is_fatal:
        return LeaseLost()
    # Where messages are in another language, only the clock tells whose cancellation it was.
    is_cancelled = (
        error.sqlstate == "57014"
        and error.routine == "ProcessInterrupts"
        and error.message != _CANCELLED
    )
    if is_cancelled and elapsed >= timeout - _ROUNDING:
        return _timed_out(timeout)
    if error.sqlstate == "25006" and error.routine.startswith("PreventCommand"):
        return ReadOnly(f"The request is read-only: {error.message}")
    # DDL between what was prepared and its execution.
    if error.sqlstate == "0A000" and error.routine == "RevalidateCachedQuery":
        return SchemaChanged()
    if error.sqlstate == "XX000" and error.message.startswith("cache lookup failed"):
        return SchemaChanged()
    position = error.fields.get("P", "")
    return driver.failure_of(
        error.sqlstate,
        error.message,
        hint=error.fields.get("H"),
        position=int(position) if position.isdigit() else None,
    )
