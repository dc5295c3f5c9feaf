"""However large and however made, a value holds up nobody while it becomes JSON."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.domain.errors import StatementFailed
from app.pools.statement import run
from tests.fixtures.postgres import Database

# Of processor time, in seconds; 20 ms are the rule, and pytest's own bookkeeping is in it too.
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
    "(select range_agg(int4range(i, i + 1)) from generate_series(1, 200000, 2) i)",
]
TOO_LARGE = [
    "repeat('1', 20000000)::varbit",
    "repeat(e'\\x01', 2000000)",
    "array_fill(true, array[3000000])",
]


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection inside a transaction, as a lease gives it."""
    async with database.connected() as connection:
        await connection.execute("CREATE TYPE pair AS (n int, t text)")
        async with connection.transaction():
            yield connection


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What each callback of the event loop took of the processor, in seconds."""
    took: list[float] = []
    run_handle = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run_handle(handle)
        took.append(time.thread_time() - began)

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    return took


@pytest.mark.parametrize("expression", LARGE)
async def test_a_large_value_is_shown_in_short_turns(
    connection: asyncpg.Connection, turns: list[float], expression: str
) -> None:
    result = await run(connection, f"select {expression}", [], max_rows=1, timeout=60)
    assert max(turns) < LONGEST_TURN
    turns.clear()
    assert len(json.loads(result.rows[0])) == 1
    assert len(result.rows[0]) > 500_000


@pytest.mark.parametrize("expression", TOO_LARGE)
async def test_a_value_that_is_too_large_is_refused_in_short_turns(
    connection: asyncpg.Connection, turns: list[float], expression: str
) -> None:
    with pytest.raises(StatementFailed, match="too large"):
        await run(connection, f"select {expression}", [], max_rows=1, timeout=60)
    assert max(turns) < LONGEST_TURN


async def test_many_rows_are_cut_at_eight_megabytes(connection: asyncpg.Connection) -> None:
    sql = "select repeat('9', 100000)::numeric from generate_series(1, 300)"
    result = await run(connection, sql, [], max_rows=1000, timeout=60)
    assert result.truncated
    assert 8_000_000 < sum(map(len, result.rows)) <= 8 * 1024 * 1024
