"""One statement on a leased connection, from values that came as JSON to rows of values.

Translates what Postgres says of the statement; knows nothing of HTTP. The statement is
prepared, so it is exactly one.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from asyncpg.cursor import Cursor
from asyncpg.prepared_stmt import PreparedStatement

from app.domain.errors import (
    LeaseLost,
    QueryTimeout,
    ReadOnly,
    StatementFailed,
)
from app.pools import driver

# The server cancels the statement first; this much later, in seconds, we stop waiting for it.
_GRACE = 1.0
# Most rows fetched at once, fewer where they are large, and the most text and bytes of them and
# of an answer: the loop has others to serve.
_AT_A_TIME = 100
_MOST_CHARACTERS_AT_A_TIME = 1024 * 1024
_MOST_CHARACTERS = 8 * 1024 * 1024
_TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "name", "json", "jsonb", "unknown"})
# asyncpg would cut 7.5 to 7 and make 1.1 a long fraction; Postgres reads their text exactly.
_EXACT_TYPES = frozenset({"int2", "int4", "int8", "oid", "numeric"})
# COPY talks a protocol of its own, in which a prepared statement would hang. The rest is what may
# stand before it: Postgres' white space, and comments, of which one kind nests.
_COPY = re.compile(r"copy\b", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\n\r\f\v;]*+")
_LINE = re.compile(r"--[^\r\n]*+")
_COMMENT_MARK = re.compile(r"/\*|\*/")


_NO_MONTHS = """
select bool_and(date_part('year', each) = 0 and date_part('month', each) = 0)
from unnest($1::text[]::interval[]) as each
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the result and its Postgres type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementResult:
    """What a statement gave.

    Attributes:
        row_count: rows returned, or changed by a statement that returns none.
        truncated: whether there were more rows than asked for.
        status: Postgres' command tag, None for a statement that returns rows.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    row_count: int
    truncated: bool
    status: str | None


async def run(
    connection: asyncpg.Connection,
    sql: str,
    params: Sequence[Any],
    *,
    max_rows: int,
    timeout: float,
) -> StatementResult:
    """Execute *sql* with *params*, JSON values, and fetch up to *max_rows* rows.

    A string binds to a parameter of any type through its text form.

    Raises:
        StatementFailed: Postgres refused it, or a parameter does not fit.
        ReadOnly: it writes and the lease is read-only.
        QueryTimeout: it ran longer than *timeout* seconds.
        LeaseLost: the connection broke.
    """
    _refuse_unsendable(sql)
    with _translated(timeout):
        async with asyncio.timeout(timeout + _GRACE):
            statement = await connection.prepare(sql)
            arguments = await _bind(connection, statement, params)
            columns = tuple(
                Column(name=attribute.name, type=attribute.type.name)
                for attribute in statement.get_attributes()
            )
            if not columns:
                await statement.fetch(*arguments)
                return _without_rows(statement.get_statusmsg())
            rows, truncated = await _fetch(await statement.cursor(*arguments), max_rows)
    return StatementResult(
        columns=columns,
        rows=tuple(tuple(row.values()) for row in rows),
        row_count=len(rows),
        truncated=truncated,
        status=None,
    )


async def _fetch(
    cursor: Cursor[asyncpg.Record], max_rows: int
) -> tuple[list[asyncpg.Record], bool]:
    """Up to *max_rows* rows, or fewer that fit into an answer; and whether there were more."""
    rows: list[asyncpg.Record] = []
    size = largest = 0
    count = 1
    while batch := await cursor.fetch(count):
        for row in batch:
            row_size = _size(row)
            largest = max(largest, row_size)
            size += row_size
            if len(rows) == max_rows or (size > _MOST_CHARACTERS and rows):
                return rows, True
            if size > _MOST_CHARACTERS:
                raise StatementFailed("A single row is too large to be shown.", sqlstate="54000")
            rows.append(row)
        # The driver holds a batch whole before its size is seen: the largest row so far tells.
        fitting = max(1, _MOST_CHARACTERS_AT_A_TIME // max(1, largest))
        count = min(_AT_A_TIME, fitting, max_rows + 1 - len(rows))
    return rows, False


def _size(value: object) -> int:
    """Text and bytes in a row or a cell of one, those in arrays and composites included."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list | tuple | asyncpg.Record):
        return sum(map(_size, value))
    return 0


def _refuse_unsendable(sql: str) -> None:
    if _COPY.match(sql, _beginning(sql)):
        raise StatementFailed("COPY is not offered here.", sqlstate="0A000")
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise StatementFailed("The statement is not valid Unicode.", sqlstate="22021") from error
    if "\x00" in sql:
        raise StatementFailed("The statement contains a NUL character.", sqlstate="22021")


def _beginning(sql: str) -> int:
    """Where the first word of *sql* stands; each character is looked at a few times at most."""
    at = depth = 0
    while True:
        at = _end_of(_SPACE, sql, at)
        if sql.startswith("--", at):
            at = _end_of(_LINE, sql, at)
        elif sql.startswith("/*", at):
            for mark in _COMMENT_MARK.finditer(sql, at):
                depth += 1 if mark[0] == "/*" else -1
                at = mark.end()
                if depth == 0:
                    break
            else:
                return len(sql)
        else:
            return at


def _end_of(pattern: re.Pattern[str], sql: str, at: int) -> int:
    found = pattern.match(sql, at)
    return found.end() if found else at


def _without_rows(status: str | None) -> StatementResult:
    last = (status or "").rpartition(" ")[2]
    return StatementResult(
        columns=(),
        rows=(),
        row_count=int(last) if last.isdigit() else 0,
        truncated=False,
        status=status,
    )


async def _bind(
    connection: asyncpg.Connection,
    statement: PreparedStatement[asyncpg.Record],
    params: Sequence[Any],
) -> list[Any]:
    """Python values for *params*: what came as text is read by Postgres as its own type's text."""
    types = statement.get_parameters()
    if len(types) != len(params):
        raise StatementFailed(
            f"The statement takes {len(types)} parameters, {len(params)} were given.",
            sqlstate="08P01",
        )
    arguments = list(params)
    as_text: list[int] = []
    for position, (wanted, value) in enumerate(zip(types, params, strict=True)):
        if wanted.name in ("json", "jsonb") and value is not None:
            arguments[position] = json.dumps(value)
        elif _is_read_as_text(value, wanted.name):
            as_text.append(position)
    if as_text:
        names = await connection.fetchrow(
            "select " + ", ".join(f"format_type(${n}, -1)" for n in range(1, len(as_text) + 1)),
            *(types[position].oid for position in as_text),
        )
        casts = ", ".join(f"${n}::text::{name}" for n, name in enumerate(names or (), start=1))
        read = await connection.fetchrow(
            f"select {casts}",
            *(str(params[position]) for position in as_text),
        )
        for position, value in zip(as_text, read or (), strict=True):
            arguments[position] = value
        await _refuse_months(
            connection, [params[each] for each in as_text if types[each].name == "interval"]
        )
    return arguments


async def _refuse_months(connection: asyncpg.Connection, intervals: Sequence[str]) -> None:
    """Python's timedelta would make 30 days of a month, and write that."""
    if intervals and not await connection.fetchval(_NO_MONTHS, intervals):
        raise StatementFailed(
            "Months and years do not survive as a parameter; write $n::text::interval.",
            sqlstate="0A000",
        )


def _is_read_as_text(value: object, wanted: str) -> bool:
    if isinstance(value, str):
        return wanted not in _TEXT_TYPES
    return isinstance(value, bool | float) and wanted in _EXACT_TYPES


@contextmanager
def _translated(timeout: float) -> Iterator[None]:
    try:
        yield
    except (asyncpg.QueryCanceledError, TimeoutError) as error:
        raise QueryTimeout(f"The statement ran longer than {timeout:g} s.") from error
    except asyncpg.ReadOnlySQLTransactionError as error:
        raise ReadOnly(f"The request is read-only: {driver.sentence(error)}") from error
    except (asyncpg.DataError, asyncpg.TooManyConnectionsError) as error:
        raise driver.refused(error) from error
    except asyncpg.UnsupportedClientFeatureError as error:
        raise StatementFailed(
            "A parameter's type takes no value here; cast it to text.", sqlstate="0A000"
        ) from error
    except asyncpg.ProtocolError as error:
        raise LeaseLost from error
    except asyncpg.InternalClientError as error:
        raise StatementFailed(
            "A value is of a type that cannot be sent or shown; cast it to text.",
            sqlstate="0A000",
        ) from error
    except driver.CONNECTION_ERRORS as error:
        raise LeaseLost from error
    except (ValueError, OverflowError) as error:
        # The driver could not make a Python value of one: a year before Christ, 24:00, a legacy
        # encoding. The connection is in step all the same.
        raise StatementFailed(
            "A value of the result cannot be shown; cast it to text.", sqlstate="0A000"
        ) from error
    except asyncpg.PostgresError as error:
        raise driver.refused(error) from error
