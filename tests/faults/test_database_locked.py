"""A tenant's database is locked, as while it is copied: its new logins hang, nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app.domain.errors import ConnectFailed, PoolTimeout
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.pools import finished, pids, provisioned, use
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


@asynccontextmanager
async def locked(database: Database, name: str) -> AsyncIterator[None]:
    """As `CREATE DATABASE … TEMPLATE` and `ALTER DATABASE … SET TABLESPACE` lock it."""
    async with database.connected() as connection, connection.transaction():
        await connection.execute(f"ALTER DATABASE {name} RENAME TO {name}_locked")
        yield
        await connection.execute(f"ALTER DATABASE {name}_locked RENAME TO {name}")


@pytest.fixture
async def shared_out(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """A manager that opens two connections at a time, with tenants of every kind."""
    async with watched_manager_on(
        database, connect_timeout=4.0, max_connecting=2, budget=12
    ) as manager:
        await provisioned(manager, "working", PoolStrategy.PER_DATABASE)
        await provisioned(manager, "locked", PoolStrategy.PER_DATABASE)
        for name in ("x", "y", "z"):
            await provisioned(manager, name)
        yield manager


def connecting(manager: TenantPoolManager) -> int:
    """How many connections into the locked database are being opened."""
    pool = manager.find("locked")
    return pool._roster.connecting if pool is not None else 0


async def test_its_tenant_is_told_why_and_nobody_else_waits_for_it(
    shared_out: TenantPoolManager, database: Database
) -> None:
    manager, server = shared_out, shared_out.servers["local"]
    await use(manager, "working")
    before = await pids(database)
    async with load_on(manager, "working", clients=1) as load, locked(database, "tenant_locked"):
        hanging = [
            asyncio.create_task(use(manager, "locked", timeout=20), name="hangs") for _ in range(4)
        ]
        await eventually(lambda: connecting(manager) == 4)
        async with AsyncExitStack() as others:
            for name in ("x", "y", "z"):
                await others.enter_async_context(manager.lease(name, timeout=10))
            assert not any(task.done() for task in hanging), "the others did not wait for them"
        told = await finished(hanging)
        await load.goes_on()
        assert before <= await pids(database)
    assert all(isinstance(error, ConnectFailed) for error in told), told
    assert "may be locked" in str(told[0])
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
        told = await finished(callers)
    assert all(isinstance(error, (PoolTimeout, ConnectFailed)) for error in told), told
    assert all("may be locked" in str(error) for error in told)
