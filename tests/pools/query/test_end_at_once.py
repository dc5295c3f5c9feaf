"""A short read that runs again: its lease begins, works and ends in one round trip."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain.errors import (
    LeaseLost,
    QueryTimeout,
    ReadOnly,
    SchemaMissing,
    StatementEndedLease,
    StatementFailed,
)
from app.domain.pool import PoolConfig
from app.domain.tenant import TenantSpec
from app.pools.connection import PooledConnection
from app.pools.manager import TenantPoolManager
from app.pools.query.descriptions import OutdatedDescription, TenantDescriptions
from app.pools.query.json_statement import JsonStatement
from app.pools.query.runner import Query
from app.wire.extended_query import ExtendedQuery
from tests.fixtures.pools import manager_on, pool_of, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

DIVIDE = "select 6 / $1::int"


class Reader:
    """Reads like the query endpoint, for one tenant."""

    def __init__(self, manager: TenantPoolManager) -> None:
        self.manager = manager
        self._descriptions = TenantDescriptions()
        self.was_ended_at_once = False

    async def __call__(
        self, sql: str, *params: Any, max_rows: int = 100, timeout: float = 30
    ) -> list[Any]:
        """The rows."""
        statement = JsonStatement(sql, params, max_rows=max_rows, descriptions=self._descriptions)
        query = Query([statement], timeout=timeout)
        self.was_ended_at_once = query.ends_at_once(read_only=True)
        async with self.manager.lease(
            "acme", read_only=True, statement_timeout=timeout, work=query
        ) as connection:
            [result] = await query.run(connection)
        return [json.loads(row) for row in result.rows]

    async def again(self, sql: str, *params: Any, **options: Any) -> list[Any]:
        """The rows of a statement that ran before."""
        try:
            return await self(sql, *params, **options)
        finally:
            assert self.was_ended_at_once


SHARED, OWN = PoolConfig.shared(1), PoolConfig.per_tenant(pool_size=1)


@pytest.fixture(params=[SHARED, OWN], ids=["shared", "own"])
async def read(
    request: pytest.FixtureRequest, database: Database, scrub_roles: None
) -> AsyncIterator[Reader]:
    """A reader for a tenant whose pool has one connection, so that each read gets the same one."""
    config: PoolConfig = request.param
    async with manager_on(database, configs={config.strategy: config}) as manager:
        await provisioned(manager, "acme", config.strategy)
        yield Reader(manager)


def spec_of(read: Reader) -> TenantSpec:
    return read.manager.tenants.state("acme").tenant.spec


def backends(read: Reader) -> set[int]:
    """The back-ends of the tenant's pool."""
    pool = pool_of(read.manager, spec_of(read).pool_id)
    return {each.pid for each in (*pool.connections.idle, *pool.connections.leased)}


async def test_it_takes_one_round_trip(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    await read(DIVIDE, 1)
    monkeypatch.delattr(PooledConnection, "run")
    monkeypatch.delattr(ExtendedQuery, "exchange")
    for number in (1, 2, 3):
        assert await read.again(DIVIDE, number) == [[6 // number]]


async def test_it_reads_only_and_what_it_sets_is_undone(read: Reader) -> None:
    for sql in (
        "select current_setting('transaction_read_only')",
        "select set_config('work_mem', '77kB', false), set_config('my.own', '1', false)",
        "select pg_advisory_lock(7)::text",
    ):
        await read(sql)
        await read.again(sql)
    assert await read(
        "select current_setting('work_mem') = '77kB', current_setting('my.own', true), "
        "(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())"
    ) == [[False, "", 0]]


@pytest.mark.parametrize("rows", [9, 10, 11, 250])
async def test_one_that_returns_more_than_before_is_run_again(read: Reader, rows: int) -> None:
    sql = "select g from generate_series(1, $1::int) g"
    await read(sql, 3)
    expected = [[number] for number in range(1, min(rows, 100) + 1)]
    if rows < 10:
        assert await read.again(sql, rows) == expected
        return
    with pytest.raises(OutdatedDescription):
        await read.again(sql, rows)
    for _ in range(2):
        assert await read(sql, rows) == expected
        assert not read.was_ended_at_once
    assert await read(sql, 1) == [[1]]


async def test_fewer_rows_than_there_are_need_no_second_run(read: Reader) -> None:
    sql = "select g from generate_series(1, $1::int) g"
    await read(sql, 3)
    assert await read.again(sql, 50, max_rows=2) == [[1], [2]]


async def test_a_failure_is_the_same_and_leaves_the_connection_in_order(read: Reader) -> None:
    await read(DIVIDE, 1)
    before = backends(read)
    for _ in range(2):
        with pytest.raises(StatementFailed) as failed:
            await read.again(DIVIDE, 0)
        assert failed.value.sqlstate == "22012"
        assert await read.again(DIVIDE, 2) == [[3]]
    assert backends(read) == before


async def test_one_that_leaves_its_context_is_refused(read: Reader) -> None:
    name, given = (
        ("app.tenant_id", "acme") if spec_of(read).is_shared else ("poolkeeper.lease", "1")
    )
    sql = f"select set_config('{name}', $1, true)"
    await read(sql, given)
    before = backends(read)
    with pytest.raises(StatementEndedLease):
        await read.again(sql, "other")
    assert backends(read) == before
    assert await read.again(sql, given) == [[given]]


@pytest.mark.parametrize("read", [SHARED], indirect=True)
async def test_a_check_that_cannot_be_run_is_no_failed_one(
    read: Reader, database: Database
) -> None:
    async with database.connected() as connection:
        await connection.execute(
            "create function forget(really bool) returns bool language plpgsql as "
            "$$ begin if really then execute 'deallocate all'; end if; return really; end $$"
        )
    sql = "select public.forget($1::bool)"
    await read(sql, "false")
    with pytest.raises(StatementFailed) as failed:
        await read.again(sql, "true")
    assert failed.value.sqlstate == "26000"
    assert await read.again(sql, "false") == [[False]]


async def test_a_write_is_refused(read: Reader) -> None:
    await read("select $1::text", "x")
    with pytest.raises(ReadOnly):
        await read("create temp table t ()")
    assert await read.again("select $1::text", "y") == [["y"]]


async def test_what_takes_too_long_ends(read: Reader) -> None:
    sql = "select pg_sleep($1::float8)::text"
    await read(sql, 0)
    before = backends(read)
    with pytest.raises(QueryTimeout):
        await read.again(sql, 600, timeout=0.2)
    assert await read.again(sql, 0) == [[""]]
    assert backends(read) == before


@pytest.mark.parametrize("moment", range(6))
async def test_one_that_is_given_up_leaves_nothing_behind(read: Reader, moment: int) -> None:
    sql = "select pg_sleep($1::float8)::text"
    await read(sql, 0)
    reading = asyncio.create_task(read.again(sql, 60))
    for _ in range(moment):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()
    assert await read.again(sql, 0) == [[""]]
    await eventually(lambda: len(backends(read)) == 1)


async def test_a_connection_that_breaks_meanwhile_loses_the_lease(
    read: Reader, database: Database
) -> None:
    sql = "select pg_sleep($1::float8)::text"
    await read(sql, 0)
    [pid] = backends(read)
    reading = asyncio.create_task(read.again(sql, 60))
    async with database.connected() as connection:
        asleep = f"select wait_event = 'PgSleep' from pg_stat_activity where pid = {pid}"
        await eventually(lambda: connection.fetchval(asleep))
        await connection.execute(f"select pg_terminate_backend({pid}, 5000)")
    with pytest.raises(LeaseLost):
        await reading
    assert await read.again(sql, 0) == [[""]]


async def test_a_dead_connection_is_replaced_unseen(read: Reader, database: Database) -> None:
    await read(DIVIDE, 1)
    [pid] = backends(read)
    async with database.connected() as connection:
        await connection.execute(f"select pg_terminate_backend({pid}, 5000)")
    assert await read.again(DIVIDE, 6) == [[1]]


@pytest.mark.parametrize("read", [OWN], indirect=True)
async def test_a_missing_schema_is_noticed(read: Reader, database: Database) -> None:
    await read(DIVIDE, 1)
    async with database.connected() as connection:
        await connection.execute("drop schema tenant_acme cascade")
    # The end of the lease finds out and closes the connection; on a new one no lease can begin.
    assert await read.again(DIVIDE, 1) == [[6]]
    with pytest.raises(SchemaMissing):
        await read.again(DIVIDE, 1)
