"""A query that begins its lease: the transaction, its context and the statement, sent together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.domain.errors import ReadOnly, SchemaMissing, StatementEndedLease, StatementFailed
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from app.pools.query.json_statement import JsonStatement
from app.pools.query.runner import Query
from tests.fixtures.pools import manager_on, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

WHO = "select current_user::text, current_setting('transaction_read_only'), $1::int"


@pytest.fixture
async def manager(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """A tenant whose pool has one connection, so that the next query meets what one leaves."""
    configs = {PoolStrategy.PER_TENANT: PoolConfig.per_tenant(pool_size=1)}
    async with manager_on(database, configs=configs) as manager:
        await provisioned(manager, "acme")
        async with manager.lease("acme") as connection:
            await connection.execute("create table note (id int primary key)")
        yield manager


async def ask(
    manager: TenantPoolManager, sql: str, *params: object, read_only: bool = False
) -> list[bytes]:
    query = Query([JsonStatement(sql, params, max_rows=100)], timeout=30)
    async with manager.lease("acme", read_only=read_only, begin=query.begin) as connection:
        [result] = await query.run(connection)
        return list(result.rows)


def backends(manager: TenantPoolManager) -> set[int]:
    """Of the connections that the tenant's pool has."""
    pool = manager.find("acme")
    assert pool is not None
    return {each.pid for each in (*pool.connections.idle, *pool.connections.leased)}


async def test_it_runs_in_the_context_and_the_transaction_of_its_lease(
    manager: TenantPoolManager,
) -> None:
    for read_only, shown in ((True, "on"), (False, "off")):
        rows = await ask(manager, WHO, 7, read_only=read_only)
        assert rows == [f'["tenant_acme","{shown}",7]'.encode()]


async def test_what_it_writes_is_committed_or_refused(manager: TenantPoolManager) -> None:
    with pytest.raises(ReadOnly):
        await ask(manager, "insert into note values (1)", read_only=True)
    await ask(manager, "insert into note values (2)")
    assert await ask(manager, "select id from note") == [b"[2]"]


async def test_a_refused_statement_leaves_its_connection_for_the_next(
    manager: TenantPoolManager,
) -> None:
    before = backends(manager)
    for sql in ("selec", "select * from nowhere", "select 1/0", "insert into note values (1), (1)"):
        with pytest.raises(StatementFailed):
            await ask(manager, sql)
    with pytest.raises(StatementEndedLease):
        await ask(manager, "rollback")
    assert await ask(manager, "select count(*) from note") == [b"[0]"]
    assert backends(manager) == before


async def test_where_no_lease_can_begin_its_error_is_the_leases(
    manager: TenantPoolManager,
) -> None:
    async with manager.lease("acme") as connection:
        await connection.execute("drop schema tenant_acme cascade")
    with pytest.raises(SchemaMissing):
        await ask(manager, "select 1")
    # The connection it was tried on is in order, and tells the same to the next.
    with pytest.raises(SchemaMissing):
        await ask(manager, "select 1")


async def test_a_dead_connection_is_replaced_unseen(
    manager: TenantPoolManager, database: Database
) -> None:
    [pid] = backends(manager)
    async with database.connected() as connection:
        await connection.execute(f"select pg_terminate_backend({pid}, 5000)")
    assert await ask(manager, WHO, 1) == [b'["tenant_acme","off",1]']


@pytest.mark.parametrize("moment", range(8))
async def test_whoever_gives_up_leaves_nothing_behind(
    manager: TenantPoolManager, moment: int
) -> None:
    asking = asyncio.create_task(ask(manager, "insert into note select 5 from pg_sleep(60)"))
    for _ in range(moment):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    assert await ask(manager, "select count(*) from note") == [b"[0]"]
    await eventually(lambda: len(backends(manager)) == 1)
