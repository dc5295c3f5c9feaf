"""Our own event loop stands still for two seconds: nobody takes that for a fault of Postgres."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools.event_loop_lag import EventLoopLag
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.pools import Bench, account, lent, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on

BLOCK_SECONDS = 2.1


@pytest.fixture
async def measured(
    database: Database, fault_proxy: FaultProxy, scrub_roles: None
) -> AsyncIterator[TenantPoolManager]:
    """A manager that measures its loop's lag, and whose logins may take a second."""
    lag = EventLoopLag()
    watching = asyncio.create_task(lag.measure(), name="loop lag")
    configs = {PoolStrategy.PER_TENANT: PoolConfig.per_tenant(pool_size=2)}
    try:
        async with watched_manager_on(
            database, proxy=fault_proxy, configs=configs, connect_timeout=1.0, lag=lag
        ) as manager:
            await provisioned(manager, "a")
            yield manager
    finally:
        watching.cancel()
        await asyncio.wait({watching})


def block_loop() -> None:
    """Block it like a forgotten synchronous call."""
    time.sleep(BLOCK_SECONDS)


def healthy(manager: TenantPoolManager) -> bool:
    server = manager.servers["local"]
    return server.is_available and server.generation == 0


async def use(manager: TenantPoolManager, timeout: float | None = None) -> object:
    async with manager.lease("a", timeout=timeout) as connection:
        return await connection.fetchval("SELECT 42")


async def test_no_lease_under_load_fails(measured: TenantPoolManager) -> None:
    async with load_on(measured, "a", clients=10) as load:
        await load.goes_on()
        for _ in range(2):
            block_loop()
            await load.goes_on()
    assert load.failures == []
    assert healthy(measured)


async def test_an_idle_connection_passes_the_check_it_was_in(bench: Bench) -> None:
    pool, acme = bench.pool(1), account()
    async with lent(pool, acme):
        pass
    checking = asyncio.create_task(pool.connections.check(not_since=time.monotonic()))
    for _ in range(3):  # by then the question is sent; the answer arrives during the block
        await asyncio.sleep(0)
    assert pool.connections.checking
    block_loop()
    assert await checking == (1, 0)
    assert pool.metrics.idle_connections == 1


async def test_the_server_is_not_lost_and_who_waits_is_served(
    measured: TenantPoolManager, fault_proxy: FaultProxy
) -> None:
    fault_proxy.latency_seconds = 0.02
    caller = asyncio.create_task(use(measured))
    await eventually(lambda: [pool for pool in measured.pools() if pool.connections.connecting])
    block_loop()
    fault_proxy.latency_seconds = 0
    assert await caller == 42
    assert healthy(measured)


async def test_asking_the_server_for_its_limits_does_not_lose_it(
    measured: TenantPoolManager, fault_proxy: FaultProxy
) -> None:
    fault_proxy.latency_seconds = 0.02
    accepted = fault_proxy.accepted
    asking = asyncio.create_task(measured.servers["local"].refresh())
    await eventually(lambda: fault_proxy.accepted > accepted)
    block_loop()
    fault_proxy.latency_seconds = 0
    await asking
    assert healthy(measured)


async def test_a_waiter_whose_time_passed_in_the_block_gets_what_came_free_in_it(
    measured: TenantPoolManager,
) -> None:
    await use(measured)
    [pool] = measured.pools()
    pool.resize(replace(pool.size, max_size=1))
    async with measured.lease("a") as connection:
        waiter = asyncio.create_task(use(measured, timeout=1.0))
        await eventually(lambda: pool.metrics.waiting_requests == 1)
        await connection.fetchval("SELECT 42")
        block_loop()
    assert await waiter == 42
