"""A caller is cancelled while waiting, connecting, querying or releasing: nothing is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState
from tests.fixtures.pools import provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


@pytest.fixture
async def slow(
    database: Database, fault_proxy: FaultProxy, scrub_roles: None
) -> AsyncIterator[TenantPoolManager]:
    """A manager behind a proxy, with one tenant whose pool has one connection."""
    configs = {PoolStrategy.PER_TENANT: PoolConfig.per_tenant(pool_size=1)}
    async with watched_manager_on(
        database, proxy=fault_proxy, configs=configs, budget=1
    ) as manager:
        state = await provisioned(manager, "a")
        async with manager.lease("a") as connection:
            await connection.execute("CREATE TABLE note (id int)")
        yield manager
        assert state.leased == state.waiting == 0
        assert state.recorder.connections_acquired == state.recorder.connections_released


def parts(manager: TenantPoolManager) -> tuple[Pool, TenantState]:
    [pool] = manager.pools()
    return pool, manager.tenants.state("a")


async def work(manager: TenantPoolManager, sql: str) -> None:
    async with manager.lease("a") as connection:
        await connection.execute(sql)


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    async with asyncio.timeout(180):
        await asyncio.wait({task})
    assert task.cancelled()


async def count(manager: TenantPoolManager) -> object:
    async with manager.lease("a") as connection:
        return await connection.fetchval("SELECT count(*) FROM note")


async def test_while_waiting(slow: TenantPoolManager) -> None:
    pool, state = parts(slow)
    async with slow.lease("a"):
        task = asyncio.create_task(work(slow, "INSERT INTO note VALUES (1)"))
        await eventually(lambda: state.waiting == 1)
        await cancel(task)
        assert state.waiting == 0
    assert await count(slow) == 0
    assert pool.recorder.connections_opened == 1


async def test_while_connecting_the_connection_serves_the_next(
    slow: TenantPoolManager, fault_proxy: FaultProxy
) -> None:
    pool, _ = parts(slow)
    pool.recycle()
    fault_proxy.latency_seconds = 0.02
    task = asyncio.create_task(work(slow, "INSERT INTO note VALUES (1)"))
    await eventually(lambda: pool.connections.connecting == 1)
    await cancel(task)
    assert await count(slow) == 0
    assert pool.recorder.connections_opened == 2


async def test_while_beginning(slow: TenantPoolManager, fault_proxy: FaultProxy) -> None:
    pool, state = parts(slow)
    fault_proxy.latency_seconds = 0.05
    task = asyncio.create_task(work(slow, "INSERT INTO note VALUES (1)"))
    await eventually(lambda: state.leased == 1)
    await cancel(task)
    fault_proxy.latency_seconds = 0
    assert await count(slow) == 0
    await eventually(lambda: slow.servers["local"].budget.used == 1)
    assert pool.metrics.total_connections == 1


async def test_while_querying(slow: TenantPoolManager, database: Database) -> None:
    pool, _ = parts(slow)
    task = asyncio.create_task(work(slow, "INSERT INTO note SELECT 1 FROM pg_sleep(60)"))
    async with database.connected() as admin:

        async def sleeps() -> bool:
            return bool(
                await admin.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
                )
            )

        await eventually(sleeps)
        await cancel(task)
        assert await count(slow) == 0
        assert not await sleeps()
    assert pool.recorder.connections_opened == 2


async def test_while_releasing(slow: TenantPoolManager, fault_proxy: FaultProxy) -> None:
    pool, _ = parts(slow)
    entered = asyncio.Event()

    async def insert() -> None:
        async with slow.lease("a") as connection:
            await connection.execute("INSERT INTO note VALUES (1)")
            fault_proxy.latency_seconds = 0.1
            entered.set()

    task = asyncio.create_task(insert())
    await entered.wait()
    await asyncio.sleep(0)
    await cancel(task)
    fault_proxy.latency_seconds = 0
    assert await count(slow) in (0, 1)  # whether it was committed is not known
    await eventually(lambda: slow.servers["local"].budget.used == 1)
    assert pool.recorder.connections_opened == 2


async def test_a_storm_of_cancellations_never_outgrows_the_pool(slow: TenantPoolManager) -> None:
    pool, state = parts(slow)
    tasks = [asyncio.create_task(work(slow, "SELECT pg_sleep(0.001)")) for _ in range(100)]
    for task in tasks[::2]:
        await asyncio.sleep(0)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None for result in results[1::2])
    assert pool.metrics.total_connections <= 1
    assert state.waiting == 0
