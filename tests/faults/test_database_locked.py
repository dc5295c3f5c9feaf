"""A tenant's database is locked, as while it is copied: its new logins hang, and no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app.domain.errors import ConnectFailed, PoolTimeout
from app.domain.eviction import EvictionReason
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.network import in_a_hurry
from tests.fixtures.pools import finished, pids, pool_of, provisioned, use
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


@asynccontextmanager
async def locked(database: Database, name: str) -> AsyncIterator[None]:
    """Lock it like `CREATE DATABASE … TEMPLATE` and `ALTER DATABASE … SET TABLESPACE`."""
    async with (
        without_autovacuum(database),
        database.connected() as connection,
        connection.transaction(),
    ):
        await connection.execute(f"ALTER DATABASE {name} RENAME TO {name}_locked")
        yield
        await connection.execute(f"ALTER DATABASE {name}_locked RENAME TO {name}")


@asynccontextmanager
async def without_autovacuum(database: Database) -> AsyncIterator[None]:
    """Its workers log in, too, would wait for the lock, and look like our back-ends."""
    async with database.connected() as connection:
        await connection.execute("ALTER SYSTEM SET autovacuum = off")
        await connection.fetchval("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            await connection.execute("ALTER SYSTEM RESET autovacuum")
            await connection.fetchval("SELECT pg_reload_conf()")


@pytest.fixture
async def shared_out(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """A manager that opens two connections at a time, with tenants of each strategy."""
    async with watched_manager_on(
        database, connect_timeout=2.5, max_connecting=2, budget=12
    ) as manager:
        await provisioned(manager, "working", PoolStrategy.PER_DATABASE)
        await provisioned(manager, "locked", PoolStrategy.PER_DATABASE)
        for name in ("x", "y", "z"):
            await provisioned(manager, name)
        yield manager


def connecting(manager: TenantPoolManager) -> int:
    """The number of connections to the locked database that are being opened."""
    pool = manager.find("locked")
    return pool.connections.connecting if pool is not None else 0


async def test_its_tenant_gets_the_reason_and_no_other_tenant_waits(
    shared_out: TenantPoolManager, database: Database
) -> None:
    manager, server = shared_out, shared_out.servers["local"]
    await use(manager, "working")
    before = await pids(database)
    async with load_on(manager, "working", clients=1) as load, locked(database, "tenant_locked"):
        hanging = [
            asyncio.create_task(use(manager, "locked", timeout=20), name="hangs") for _ in range(4)
        ]
        await eventually(lambda: connecting(manager))
        async with AsyncExitStack() as others:
            for name in ("x", "y", "z"):
                await others.enter_async_context(manager.lease(name, timeout=10))
            assert not any(task.done() for task in hanging), "the others did not wait for them"
        errors = await finished(hanging)
        await load.goes_on()
        assert before <= await pids(database)
    assert all(isinstance(error, ConnectFailed) for error in errors), errors
    assert "may be locked" in str(errors[0])
    assert load.failures == []
    assert (server.is_available, server.generation, server.last_error) == (True, 0, None)
    await use(manager, "locked", timeout=20)


async def test_after_a_failure_it_tries_with_one_connection_until_that_is_open(
    shared_out: TenantPoolManager, database: Database
) -> None:
    manager = shared_out
    async with locked(database, "tenant_locked"):
        with pytest.raises(ConnectFailed):
            await use(manager, "locked", timeout=20)
        callers = [
            asyncio.create_task(use(manager, "locked", timeout=1), name="waits") for _ in range(4)
        ]
        await eventually(lambda: connecting(manager))
        assert connecting(manager) == 1
        errors = await finished(callers)
    assert all(isinstance(error, (PoolTimeout, ConnectFailed)) for error in errors), errors
    assert all("may be locked" in str(error) for error in errors)


async def waiting_for_database(database: Database) -> int:
    """Back-ends whose login waits for a lock; only this view shows them."""
    async with database.connected() as connection:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM pg_locks"
                " WHERE classid = 'pg_database'::regclass AND NOT granted"
            )
        )


async def test_retries_leave_few_back_ends_waiting_and_count_all_of_them(
    database: Database, scrub_roles: None
) -> None:
    async with watched_manager_on(database, budget=12) as manager:
        server = manager.servers["local"]
        await provisioned(manager, "locked", PoolStrategy.PER_DATABASE)
        async with locked(database, "tenant_locked"):
            with in_a_hurry(manager, 0.3):
                for _ in range(4):
                    with pytest.raises((ConnectFailed, PoolTimeout), match="may be locked"):
                        await use(manager, "locked", timeout=20)
                hung = await waiting_for_database(database)
                assert 1 <= hung <= 2
                assert server.budget.limit == 12 - hung
                pool = pool_of(manager, "locked")
                # Nor do they increase, or go uncounted, when the pool is closed and opened again.
                await manager.evict(pool, EvictionReason.FORCED, 0)
                with pytest.raises(ConnectFailed, match="may be locked"):
                    await use(manager, "locked", timeout=20)
                hung = await waiting_for_database(database)
                assert hung <= 2
                assert server.budget.limit == 12 - hung
                assert server.is_available
        await eventually(lambda: server.budget.limit == 12)
        await use(manager, "locked", timeout=20)
        assert await waiting_for_database(database) == 0


async def test_a_pool_that_closes_while_it_logs_in_leaves_a_counted_back_end(
    database: Database, scrub_roles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pools.pool._SETTLE_DEADLINE", 0.1)
    async with watched_manager_on(database, connect_timeout=30.0, budget=12) as manager:
        server = manager.servers["local"]
        await provisioned(manager, "locked", PoolStrategy.PER_DATABASE)
        async with locked(database, "tenant_locked"):
            with pytest.raises(PoolTimeout, match="has not been answered"):
                await use(manager, "locked", timeout=0.5)

            async def hangs() -> bool:
                return await waiting_for_database(database) == 1

            await eventually(hangs)
            [pool] = manager.pools()
            await manager.evict(pool, EvictionReason.FORCED, 0)
            assert (server.budget.used, server.budget.limit) == (0, 11)
        await eventually(lambda: server.budget.limit == 12)
