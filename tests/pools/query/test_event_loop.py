"""No value blocks the event loop while it becomes JSON, however large it is."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from app.domain.errors import StatementFailed
from app.pools.query.descriptions import TenantDescriptions
from app.pools.query.json_statement import JsonStatement
from app.pools.query.runner import Query
from app.pools.query.statement import Statement
from app.pools.query.text_statement import TextStatement
from app.runtime.gc_tuning import tuned_gc
from app.wire.backend_messages import column_values
from app.wire.extended_query import Ending
from tests.fixtures.postgres import Database
from tests.fixtures.queries import run_query

pytestmark = pytest.mark.asyncio_loop

# Of processor time, in seconds; the rule is 20 ms, and this includes pytest's own bookkeeping.
LONGEST_TURN = 0.04

LARGE = [
    "repeat('1', 8000000)::varbit",
    "array_fill(1, array[3000000])",
    "array_fill(0.5::float8, array[1900000])",
    "array_fill('\"'::text, array[300000])",
    "array[repeat('\\', 1900000)]",
    "row(1, repeat('\"', 2000000))::pair",
    "repeat(e'\\x01', 1300000)",
    "('[\"' || repeat('\\n', 2000000) || '\"]')::json",
    "(select array_agg(array[row()]) from generate_series(1, 20000))",
    f"{'row(' * 15}repeat('x', 8000000){')' * 15}",
    "(select range_agg(int4range(i, i + 1)) from generate_series(1, 200000, 2) i)",
]
TOO_LARGE = [
    "repeat('1', 20000000)::varbit",
    "repeat(e'\\x01', 2000000)",
    "array_fill(true, array[3000000])",
]


TOO_MANY = [
    "array_agg(array[row()])",
    "array_agg(array[null::record])",
    "array_agg(row(i))",
    "array_agg(row())",
]


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection inside a transaction, as a lease gives it."""
    async with database.connected() as connection:
        await connection.execute("CREATE TYPE pair AS (n int, t text)")
        async with connection.transaction():
            yield connection


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The processor time of each callback of the event loop, in seconds.

    It does not include garbage collection of the rest of this process, as in a service.
    """
    took: list[float] = []
    run_handle = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run_handle(handle)
        took.append(time.thread_time() - began)

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    with tuned_gc():
        yield took


@pytest.mark.parametrize("expression", LARGE)
async def test_a_large_value_is_written_in_short_steps(
    connection: asyncpg.Connection, turns: list[float], expression: str
) -> None:
    result = await run_query(connection, f"select {expression}", [], max_rows=1, timeout=60)
    assert max(turns) < LONGEST_TURN
    turns.clear()
    assert len(json.loads(result.rows[0])) == 1
    assert len(result.rows[0]) > 100_000


@pytest.mark.parametrize("expression", TOO_LARGE)
async def test_a_value_that_is_too_large_is_refused_in_short_steps(
    connection: asyncpg.Connection, turns: list[float], expression: str
) -> None:
    with pytest.raises(StatementFailed, match="larger than 8 MiB"):
        await run_query(connection, f"select {expression}", [], max_rows=1, timeout=60)
    assert max(turns) < LONGEST_TURN


@pytest.mark.parametrize("expression", TOO_MANY)
async def test_records_of_too_many_values_are_refused_in_short_steps(
    connection: asyncpg.Connection, turns: list[float], expression: str
) -> None:
    sql = f"select {expression} from generate_series(1, 300000) i"
    with pytest.raises(StatementFailed, match="more than 50000 values"):
        await run_query(connection, sql, [], max_rows=1, timeout=60)
    assert max(turns) < LONGEST_TURN


@pytest.mark.parametrize("kind", ["json", "known json", "text"])
async def test_long_numbers_become_text_in_short_steps(
    connection: asyncpg.Connection, turns: list[float], kind: str
) -> None:
    sql, longest = "select array_length($1::numeric[], 1)", 10**4299
    numbers = [longest - each for each in range(240)]
    known = TenantDescriptions()
    if kind == "known json":
        first = JsonStatement(sql, [[1]], max_rows=1, descriptions=known)
        await Query([first], timeout=60).run(connection)
        assert known.find(sql) is not None
        turns.clear()
    statement: Statement[Any] = JsonStatement(sql, [numbers], max_rows=1, descriptions=known)
    if kind == "text":
        statement = TextStatement(sql, [numbers], as_arrays=True, raw_text=True, is_alone=False)
    [result] = await Query([statement], timeout=60).run(connection)
    assert max(turns) < LONGEST_TURN
    assert b"240" in result.rows[0]


@pytest.mark.parametrize("comment", ["/**/", "--\n", "/*/**/*/", ";"])
async def test_a_statement_behind_many_comments_is_recognized_in_short_steps(
    connection: asyncpg.Connection, turns: list[float], comment: str
) -> None:
    sql = comment * (90_000 // len(comment)) + "select 1"
    result = await run_query(connection, sql, (), max_rows=1, timeout=60)
    assert result.rows == (b"[1]",)
    assert max(turns) < LONGEST_TURN


async def test_many_short_rows_take_little_more_memory_than_their_text(
    connection: asyncpg.Connection,
) -> None:
    sql = "select from generate_series(1, 20000)"
    statement = TextStatement(sql, (), as_arrays=True, raw_text=True, is_alone=False)
    [result] = await Query([statement], timeout=60).run(connection)
    assert result.row_count == 20_000
    document = b"[%b]" % b",".join(result.rows)
    assert json.loads(document) == [[]] * 20_000
    assert sum(map(sys.getsizeof, result.rows)) < 2 * len(document)


async def test_many_rows_that_come_at_once_are_taken_in_short_steps(
    connection: asyncpg.Connection, turns: list[float]
) -> None:
    sql = "select g from generate_series(1, 500000) g"
    statement = TextStatement(sql, (), as_arrays=True, raw_text=True, is_alone=True)
    query = Query([statement], timeout=60)
    await query.begin(connection, "savepoint a", Ending("select 1", "rollback to a"))
    [result] = await query.run(connection)
    await query.wait_ended()
    assert result.row_count == 500_000
    assert max(turns) < LONGEST_TURN


async def test_many_rows_are_cut_at_eight_megabytes(connection: asyncpg.Connection) -> None:
    sql = "select repeat('9', 100000)::numeric from generate_series(1, 300)"
    result = await run_query(connection, sql, [], max_rows=1000, timeout=60)
    assert result.truncated
    assert 8_000_000 < sum(map(len, result.rows)) <= 8 * 1024 * 1024


async def test_wide_rows_with_json_are_split_one_at_a_time(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_in: list[object] = []

    def split(row: bytes) -> list[bytes | None]:
        split_in.append(now_running[-1])
        return column_values(row)

    now_running: list[object] = []
    run_handle = asyncio.Handle._run

    def run(handle: asyncio.Handle) -> None:
        now_running.append(object())
        run_handle(handle)

    monkeypatch.setattr(asyncio.Handle, "_run", run)
    monkeypatch.setattr("app.pools.query.rows.column_values", split)
    columns = ", ".join(["null::json"] * 1600)
    result = await run_query(
        connection, f"select {columns} from generate_series(1, 100)", [], max_rows=100, timeout=60
    )
    assert result.row_count == 100
    assert max(Counter(split_in).values()) == 1


async def test_a_type_that_many_types_contain_is_looked_up_in_short_steps(
    connection: asyncpg.Connection, turns: list[float]
) -> None:
    await connection.execute("create type broad0 as (a text, b text, c text, d text)")
    for number in range(1, 8):
        parts = ", ".join(f"{name} broad{number - 1}" for name in "abcd")
        await connection.execute(f"create type broad{number} as ({parts})")
    turns.clear()
    result = await run_query(
        connection, "select null::broad7, $1::broad7", [None], max_rows=1, timeout=60
    )
    assert max(turns) < LONGEST_TURN
    assert result.rows == (b"[null,null]",)


async def test_many_attributes_are_looked_up_in_short_steps(
    connection: asyncpg.Connection, turns: list[float]
) -> None:
    columns = ", ".join(f"column_with_a_long_name_{each} int" for each in range(1600))
    for number in range(10):
        await connection.execute(f"create type wide{number} as ({columns})")
    turns.clear()
    values = ", ".join(f"null::wide{number}" for number in range(10))
    await run_query(connection, f"select {values}", [], max_rows=1, timeout=60)
    assert max(turns) < LONGEST_TURN
