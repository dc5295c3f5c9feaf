"""One server's budget among its pools, as Postgres itself sees it."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from app.domain.errors import PoolTimeout
from app.pools.pool import Pool
from app.pools.servers.admin_connections import ADMIN_CONNECTIONS
from app.pools.tenant_state import TenantState
from tests.fixtures.pools import Bench, account, backends, bench_on, finished, lent
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched

BUDGET = 6


@pytest.fixture
async def tight(database: Database) -> AsyncIterator[Bench]:
    """Pools on a server with a budget of six connections."""
    async with bench_on(database, budget=BUDGET) as bench:
        yield bench


def pools(bench: Bench, number: int, max_size: int = 4) -> list[tuple[Pool, TenantState]]:
    names = [f"t{index}" for index in range(number)]
    return [(bench.pool(max_size, name=name), account(name)) for name in names]


async def test_the_budget_is_read_from_the_server(database: Database) -> None:
    async with bench_on(database, kept_free=20) as bench:
        # 200 max_connections, 3 reserved for superusers, and those for administration
        assert bench.server.budget.limit == 200 - 3 - 20 - ADMIN_CONNECTIONS


async def test_idle_connections_of_others_are_taken_back_the_least_recently_used_pool_first(
    tight: Bench,
) -> None:
    (old, one), (new, two), (asking, three) = pools(tight, 3, max_size=3)
    for pool, owner in ((old, one), (new, two)):
        async with lent(pool, owner), lent(pool, owner), lent(pool, owner):
            pass
    async with lent(asking, three), lent(asking, three):
        assert old.metrics.total_connections == 1
        assert new.metrics.total_connections == 3


async def test_connections_of_a_min_size_are_not_taken(tight: Bench) -> None:
    keeping = tight.pool(4, min_size=4, name="keeping")
    await eventually(lambda: keeping.metrics.idle_connections == 4)
    asking, owner = tight.pool(4, name="asking"), account()
    async with lent(asking, owner), lent(asking, owner):
        with pytest.raises(PoolTimeout):
            await asking.acquire(owner, 0.1)
    assert keeping.metrics.idle_connections == 4


async def test_a_connection_that_becomes_idle_is_given_to_who_waits_elsewhere(
    tight: Bench,
) -> None:
    (full, one), (empty, two) = pools(tight, 2, max_size=BUDGET)
    holders = [await full.acquire(one, 5) for _ in range(BUDGET)]
    waiter = asyncio.create_task(empty.acquire(two, 5))
    await asyncio.sleep(0)
    assert not waiter.done()
    full.release(holders.pop(), reusable=True)
    empty.release(await waiter, reusable=True)
    for holder in holders:
        full.release(holder, reusable=True)


async def test_what_a_cancelled_waiter_leaves_idle_serves_another_pool(tight: Bench) -> None:
    (full, one), (empty, two) = pools(tight, 2, max_size=BUDGET)
    holders = [await full.acquire(one, 5) for _ in range(BUDGET)]
    inside = asyncio.create_task(full.acquire(one, 5))
    await asyncio.sleep(0)
    outside = asyncio.create_task(empty.acquire(two, 5))
    await asyncio.sleep(0)
    # The waiter inside may get it if its share says so; it leaves at the same moment.
    full.release(holders.pop(), reusable=True)
    inside.cancel()
    empty.release((await finished([outside]))[0], reusable=True)
    for holder in holders:
        full.release(holder, reusable=True)


async def test_a_flood_gives_way_until_the_other_tenant_has_its_half(
    tight: Bench, database: Database
) -> None:
    (flood, one), (other, two) = pools(tight, 2, max_size=BUDGET)

    async def work(pool: Pool, owner: TenantState) -> None:
        while True:
            async with lent(pool, owner, timeout=60) as connection:
                await connection.raw.execute("SELECT pg_sleep(0.02)")

    async with watched(database, budget=BUDGET):
        tasks = [asyncio.create_task(work(flood, one)) for _ in range(2 * BUDGET)]
        await eventually(lambda: flood.metrics.active_connections == BUDGET)
        tasks += [asyncio.create_task(work(other, two)) for _ in range(2 * BUDGET)]
        await eventually(lambda: other.metrics.active_connections == BUDGET // 2)
        assert flood.metrics.active_connections > 0
        for task in tasks:
            task.cancel()
        await finished(tasks)


async def test_random_load_stays_inside_the_budget_and_nobody_starves(
    tight: Bench, database: Database
) -> None:
    chance = random.Random(7)  # noqa: S311 - a load, not a secret
    members = pools(tight, 6)
    served = dict.fromkeys(range(6), 0)

    async def work(number: int) -> None:
        pool, owner = members[number % 6]
        await asyncio.sleep(chance.random())
        async with lent(pool, owner, timeout=20) as connection:
            await connection.raw.execute(f"SELECT pg_sleep({chance.random() / 100})")
            served[number % 6] += 1

    async with watched(database, budget=BUDGET) as watch:
        tasks = [asyncio.create_task(work(number)) for number in range(600)]
        for task in chance.sample(tasks, 60):
            asyncio.get_running_loop().call_later(chance.random(), task.cancel)
        results = await finished(tasks)
        assert watch.looks > 20
    failures = [result for result in results if isinstance(result, Exception)]
    assert failures == []
    assert min(served.values()) >= 60
    for pool, owner in members:
        assert pool.recorder.connections_acquired == pool.recorder.connections_released
        assert owner.leased == owner.waiting == pool.metrics.waiting_requests == 0
    await eventually(
        lambda: (
            tight.server.budget.used == sum(pool.metrics.total_connections for pool, _ in members)
        )
    )


async def test_a_lowered_limit_is_reached_as_connections_come_back(tight: Bench) -> None:
    (first, one), (second, two) = pools(tight, 2, max_size=3)
    async with lent(first, one), lent(first, one), lent(second, two):
        tight.server.budget.set_limit(2)
        assert tight.server.budget.used == 3
        with pytest.raises(PoolTimeout):
            await second.acquire(two, 0.05)
    tight.server.budget.set_limit(5)
    async with lent(second, two), lent(second, two):
        pass


async def _all_sleep(database: Database) -> bool:
    return await backends(database, "wait_event = 'PgSleep'") == BUDGET


async def test_cut_connections_count_until_postgres_has_dropped_them(
    tight: Bench, database: Database
) -> None:
    members = pools(tight, 2, max_size=BUDGET)
    async with watched(database, budget=BUDGET):
        for _ in range(3):
            for pool, owner in members:
                holders = [await pool.acquire(owner, 10) for _ in range(BUDGET)]
                left = [
                    asyncio.create_task(holder.raw.execute("SELECT pg_sleep(30)"))
                    for holder in holders
                ]
                await eventually(lambda: _all_sleep(database))
                for holder in holders:
                    pool.release(holder, reusable=False)
                await finished(left)
