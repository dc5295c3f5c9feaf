"""Every connection is reset by the network, under load and at rest."""

import asyncio

from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.pools import (
    account,
    bench_on,
    finished,
    lent,
    manager_on,
    provisioned,
    through,
    watched,
)
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually


async def test_pools_under_load_recover_and_stay_inside_their_budget(
    database: Database, postgres_server: Database, fault_proxy: FaultProxy, scrub_roles: None
) -> None:
    async with manager_on(through(database, fault_proxy), budget=5) as manager:
        await provisioned(manager, "a")
        async with watched(postgres_server) as watch, load_on(manager, "a", clients=10) as load:
            for _ in range(3):
                await load.goes_on()
                await fault_proxy.reset()
            await load.goes_on_without_failure()
        assert watch.most <= 5


async def test_back_ends_at_work_on_broken_connections_count_until_they_are_gone(
    database: Database, postgres_server: Database, fault_proxy: FaultProxy
) -> None:
    async with bench_on(through(database, fault_proxy), budget=2) as bench:
        pool, acme = bench.pool(2), account()
        holders = [await pool.acquire(acme, 5) for _ in range(2)]
        asleep = [
            asyncio.create_task(holder.raw.execute("SELECT pg_sleep(30)")) for holder in holders
        ]
        async with watched(postgres_server) as watch:
            await eventually(lambda: watch.now == 2)
            await fault_proxy.reset()
            await finished(asleep)
            for holder in holders:
                pool.release(holder, reusable=True)
            async with lent(pool, acme), lent(pool, acme):
                looks = watch.looks
                await eventually(lambda: watch.looks > looks + 2)
            assert watch.most == 2


async def test_an_idle_pool_serves_the_next_caller(
    database: Database, fault_proxy: FaultProxy, scrub_roles: None
) -> None:
    async with manager_on(through(database, fault_proxy)) as manager:
        await provisioned(manager, "a")
        await _use(manager)
        await fault_proxy.reset()
        await _use(manager)
        await eventually(lambda: manager.servers["local"].budget.used == 1)


async def _use(manager: TenantPoolManager) -> None:
    async with manager.lease("a") as connection:
        assert await connection.fetchval("SELECT 42") == 42
