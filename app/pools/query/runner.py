"""One statement on a leased connection, from values that came as JSON to rows of JSON.

Translates what Postgres says of the statement; knows nothing of HTTP. The statement is
prepared, so it is exactly one. Parameters and results travel as text, so each is what Postgres
itself reads and writes, and nothing of the statement's types is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

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
from app.pools.query.pg_json import decode, to_json
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

# The server cancels the statement first; this much later, in seconds, we do; and then it has so
# long to stop before the connection is cut.
_GRACE = 1.0
# The server counts whole milliseconds, we do not.
_MILLISECONDS = 0.002
_CANCEL_DEADLINE = 2.0
# Most rows fetched at once, fewer where they are large, and the most bytes of them and of an
# answer: the loop has others to serve.
_AT_A_TIME = 100
_MOST_BYTES_AT_A_TIME = 1024 * 1024
_MOST_BYTES = 8 * 1024 * 1024
# So many cells take about a millisecond.
_CELLS_IN_A_STEP = 500
# More parts than this in its parameters, and another thread makes text of them.
_FEW_PARTS = 2000
_PORTAL = "poolkeeper"
_RECORDS = frozenset({RECORD, RECORD_ARRAY})

# The forms of values that read back exactly, whatever the role or the database prefers; and NULL
# is no string in an array. With ISO
# alone the order of day and month in what is read stays the tenant's.
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
# What the server reports of the forms; a statement may change them while it runs.
_FORMS = {"DateStyle": "ISO", "IntervalStyle": "postgres", "client_encoding": "UTF8"}
_CANCELLED = "canceling statement due to user request"
# Tags of statements that end a transaction, even if they begin another at once.
_ENDINGS = frozenset({"COMMIT", "ROLLBACK", "PREPARE TRANSACTION"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultColumn:
    """A column of the result and its Postgres type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementResult:
    """What a statement gave.

    Attributes:
        rows: each a JSON array, in UTF-8.
        row_count: rows returned, or changed by a statement that returns none.
        truncated: whether there were more rows than asked for, or than fit into an answer.
        status: Postgres' command tag, None for a statement that returns columns.
    """

    columns: tuple[ResultColumn, ...]
    rows: tuple[bytes, ...]
    row_count: int
    truncated: bool
    status: str | None


async def run_query(
    connection: asyncpg.Connection,
    sql: str,
    params: Sequence[object],
    *,
    max_rows: int,
    timeout: float,
) -> StatementResult:
    """Execute *sql* with *params*, JSON values, and fetch up to *max_rows* rows.

    A string binds to a parameter of any type through its text form. Numbers that are no int keep
    the digits that their `str` shows.

    Raises:
        StatementFailed: Postgres refused it, or a parameter or a result does not fit.
        StatementConflict: another transaction was in its way.
        StatementEndedLease: it ended the transaction.
        SchemaChanged: its types changed meanwhile.
        ReadOnly: it writes and the lease is read-only.
        QueryTimeout: it ran longer than *timeout* seconds.
        LeaseLost: the connection broke.
    """
    _sendable(sql, "The statement")
    async with _translated(connection, timeout) as query:
        prepared = await query.exchange(parse(_SET), bind(), execute(), parse(sql), describe())
        if len(prepared.parameters) != len(params):
            raise StatementFailed(
                f"The statement takes {len(prepared.parameters)} parameters, "
                f"{len(params)} were given.",
                sqlstate="08P01",
            )
        fields = prepared.fields or ()
        kinds = await look_up_types(query, {*prepared.parameters, *(field.oid for field in fields)})
        columns = tuple(ResultColumn(name=each.name, type=kinds[each.oid].name) for each in fields)
        answer = _Answer(query, [kinds[each.oid] for each in fields])
        values = await _texts(params, [kinds[oid] for oid in prepared.parameters])
        reply = await answer.fetch(values, max_rows, has_rows=prepared.fields is not None)
    count, status = len(answer.rows), None
    if not columns and not answer.truncated:
        command, _, last = (reply.command_tag or "").rpartition(" ")
        if prepared.fields is None:
            count, status = int(last) if last.isdigit() else 0, reply.command_tag
        else:
            status = f"{command} {count}"  # Postgres' own is of the last fetch
    return StatementResult(
        columns=columns,
        rows=tuple(answer.rows),
        row_count=count,
        truncated=answer.truncated,
        status=status,
    )


async def _texts(params: Sequence[object], kinds: Sequence[PgType]) -> list[bytes | None]:
    def texts() -> list[bytes | None]:
        found: list[bytes | None] = []
        room = _MOST_BYTES
        for text in map(literal, params, kinds):
            found.append(None if text is None else _sendable(text, "A parameter"))
            room -= len(found[-1] or b"")
            # One of them may be many times as long as the JSON it came as.
            if room < 0:
                raise StatementFailed("The parameters are too large.", sqlstate="54000")
        return found

    return await asyncio.to_thread(texts) if _are_many(params) else texts()


def _are_many(params: Sequence[object]) -> bool:
    """Whether there is much in *params*, strings counted by their length."""
    waiting: list[object] = [params]
    parts = 0
    while waiting and parts <= _FEW_PARTS:
        each = waiting.pop()
        parts += 1
        if isinstance(each, str):
            parts += len(each) // 100
        elif isinstance(each, dict):
            parts += len(each)
            waiting.extend(each.values())
        elif isinstance(each, Sequence):
            parts += len(each) // 2
            waiting.extend(each)
    return parts > _FEW_PARTS


class _Answer:
    """The rows of a statement as they come, as JSON; never more than fits into an answer."""

    def __init__(self, query: ExtendedQuery, kinds: Sequence[PgType]) -> None:
        self.rows: list[bytes] = []
        self.truncated = False
        self._query = query
        self._kinds = kinds
        self._size = 0
        self._records = AnonymousRecords(query)
        self._steps = 0

    async def fetch(
        self, values: Sequence[bytes | None], max_rows: int, *, has_rows: bool
    ) -> Reply:
        """Execute the prepared statement with *values*, and take up to *max_rows* rows."""
        formats = [BINARY if kind.oid in _RECORDS else TEXT for kind in self._kinds]
        # Two, so that one row alone comes together with the end.
        count, largest = 2, 1
        binding = bind(values, portal=_PORTAL, result_formats=formats if has_rows else (TEXT,))
        # An earlier statement of the same transaction may have left its own.
        first = [close(portal=_PORTAL), binding]
        while True:
            reply = await self._query.exchange(
                *first,
                execute(portal=_PORTAL, max_rows=count),
                max_row_bytes=_MOST_BYTES - self._size,
            )
            first = []
            if reply.transaction_status == "I" or reply.command_tag in _ENDINGS:
                raise StatementEndedLease
            if reply.rows:
                _unchanged(reply.parameter_status)
            largest = max(largest, *map(len, reply.rows), 1)
            await self._take(reply, max_rows)
            if reply.command_tag is not None or self.truncated or not has_rows:
                return reply
            # The largest row so far tells how many fit at once.
            fitting = max(1, _MOST_BYTES_AT_A_TIME // largest)
            count = min(_AT_A_TIME, fitting, max_rows + 1 - len(self.rows))

    async def _take(self, reply: Reply, max_rows: int) -> None:
        trees = await self._trees(reply.rows)
        for number, row in enumerate(reply.rows):
            if len(self.rows) == max_rows:
                self.truncated = True
                return
            written = await self._written(column_values(row), trees[number] if trees else {})
            if written is None:
                self._cut()
                return
            self.rows.append(written)
            self._size += len(written)
        if reply.is_truncated:
            self._cut()

    def _cut(self) -> None:
        """The next row does not fit; alone it would not either if there is none yet."""
        if not self.rows:
            raise StatementFailed("A single row is too large to be shown.", sqlstate="54000")
        self.truncated = True

    async def _trees(self, rows: Sequence[bytes]) -> list[dict[int, Tree]]:
        """What is in the columns of records, by number; empty if there are none."""
        if not any(kind.oid in _RECORDS for kind in self._kinds):
            return []
        trees: list[dict[int, Tree]] = []
        for row in rows:
            trees.append({})
            for number, (cell, kind) in enumerate(
                zip(column_values(row), self._kinds, strict=True)
            ):
                if cell is not None and kind.oid in _RECORDS:
                    reading = self._records.read(cell, kind.oid)
                    while True:
                        try:
                            next(reading)
                        except StopIteration as end:
                            trees[-1][number] = end.value
                            break
                        await asyncio.sleep(0)
        await self._records.resolve(max_bytes=_MOST_BYTES)
        return trees

    async def _written(
        self, values: Sequence[bytes | None], trees: Mapping[int, Tree]
    ) -> bytes | None:
        """A row as JSON; None if the answer has no room for it."""
        written: list[bytes] = []
        room = _MOST_BYTES - self._size
        out: list[str] = ["["]
        for _ in self._steps_of(values, trees, out):
            written.append("".join(out).encode())
            room -= len(written[-1])
            if room < 0:
                return None
            out.clear()
            await asyncio.sleep(0)
        out.append("]")
        written.append("".join(out).encode())
        return b"".join(written) if len(written[-1]) <= room else None

    def _steps_of(
        self, values: Sequence[bytes | None], trees: Mapping[int, Tree], out: list[str]
    ) -> Iterator[None]:
        for number, (value, kind) in enumerate(zip(values, self._kinds, strict=True)):
            if number:
                out.append(",")
            if value is None:
                out.append("null")
            elif kind.oid in _RECORDS:
                yield from self._records.write(trees[number], out)
            else:
                yield from to_json(decode(value), kind, out)
            self._steps += 1
            if self._steps % _CELLS_IN_A_STEP == 0:
                yield


def _unchanged(settings: Mapping[str, str]) -> None:
    """Refuse rows in forms that the statement chose for itself."""
    for name, value in settings.items():
        if name in _FORMS and value.partition(",")[0] != _FORMS[name]:
            raise StatementFailed(
                f"The statement changes {name}, and its result cannot be read.", sqlstate="22023"
            )


def _sendable(text: str, what: str) -> bytes:
    """*text* for a server, which has neither NUL nor half a character."""
    if "\x00" in text:
        raise StatementFailed(f"{what} contains a NUL character.", sqlstate="22021")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StatementFailed(f"{what} is not valid Unicode.", sqlstate="22021") from error


@asynccontextmanager
async def _translated(
    connection: asyncpg.Connection, timeout: float
) -> AsyncIterator[ExtendedQuery]:
    began = monotonic()
    try:
        with ExtendedQuery(connection) as query:
            try:
                async with asyncio.timeout(timeout + _GRACE):
                    yield query
            except TimeoutError as error:
                await query.wait_idle(_CANCEL_DEADLINE)
                raise _timed_out(timeout) from error
    except CopyAttempted as error:
        raise StatementFailed("COPY is not offered here.", sqlstate="0A000") from error
    except ServerError as error:
        raise _failure(error, timeout, monotonic() - began) from error
    except OSError as error:
        raise LeaseLost from error


def _timed_out(timeout: float) -> QueryTimeout:
    return QueryTimeout(f"The statement ran longer than {timeout:g} s.")


def _failure(error: ServerError, timeout: float, elapsed: float) -> Exception:
    """What a refusal by the server means; Postgres' own code is known by where it raised it."""
    if error.is_fatal:
        return LeaseLost()
    if _is_interrupted(error) and elapsed >= timeout - _MILLISECONDS:
        return _timed_out(timeout)
    if error.sqlstate == "25006" and error.routine.startswith("PreventCommand"):
        return ReadOnly(f"The request is read-only: {error.message}")
    if _is_stale(error):
        return SchemaChanged()
    position = error.fields.get("P", "")
    return driver.failure_of(
        error.sqlstate,
        error.message,
        hint=error.fields.get("H"),
        position=int(position) if position.isdigit() else None,
    )


def _is_interrupted(error: ServerError) -> bool:
    """Whether the server itself ended the statement, and nobody else is known to have asked."""
    return (
        error.sqlstate == "57014"
        and error.routine == "ProcessInterrupts"
        # Where messages are in another language, only the clock tells.
        and error.message != _CANCELLED
    )


def _is_stale(error: ServerError) -> bool:
    """Whether DDL came between what was prepared and its execution."""
    if error.sqlstate == "0A000":
        return error.routine == "RevalidateCachedQuery"
    return error.sqlstate == "XX000" and error.message.startswith("cache lookup failed")
