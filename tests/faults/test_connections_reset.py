"""Every connection is reset by the network, under load and at rest."""

import asyncio

from tests.fixtures.load import load_on
from tests.fixtures.pools import (
    account,
    bench_on,
    finished,
    lent,
    provisioned,
    through,
    use,
)
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched, watched_manager_on


async def test_pools_under_load_recover_and_stay_inside_their_budget(
    database: Database, fault_proxy: FaultProxy, scrub_roles: None
) -> None:
    async with watched_manager_on(database, proxy=fault_proxy, budget=5) as manager:
        await provisioned(manager, "a")
        async with load_on(manager, "a", clients=10) as load:
            for _ in range(3):
                await load.goes_on()
                await fault_proxy.reset()
            await load.goes_on_without_failure()


async def test_back_ends_at_work_on_broken_connections_count_until_they_are_gone(
    database: Database, fault_proxy: FaultProxy
) -> None:
    async with bench_on(through(database, fault_proxy), budget=2) as bench:
        pool, acme = bench.pool(2), account()
        holders = [await pool.acquire(acme, 5) for _ in range(2)]
        asleep = [
            asyncio.create_task(holder.raw.execute("SELECT pg_sleep(30)")) for holder in holders
        ]
        async with watched(database, budget=2) as watch:
            await eventually(lambda: watch.now == 2)
            await fault_proxy.reset()
            await finished(asleep)
            for holder in holders:
                pool.release(holder, reusable=True)
            async with lent(pool, acme), lent(pool, acme):
                looks = watch.looks
                await eventually(lambda: watch.looks > looks + 2)


async def test_an_idle_pool_serves_the_next_caller(
    database: Database, fault_proxy: FaultProxy, scrub_roles: None
) -> None:
    async with watched_manager_on(database, proxy=fault_proxy) as manager:
        await provisioned(manager, "a")
        await use(manager, "a")
        await fault_proxy.reset()
        await use(manager, "a")
        await eventually(lambda: manager.servers["local"].budget.used == 1)
