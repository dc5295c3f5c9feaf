"""A pool's size changes under load, in both directions, and no borrower notices."""

import asyncio
from functools import partial

from app.domain.pool import PoolSize
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState
from tests.fixtures.pools import Bench, account, finished, in_background, lent
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import Watch, watched


def sized(max_size: int, min_size: int = 0) -> PoolSize:
    return PoolSize(min_size=min_size, max_size=max_size, warmup_size=0)


def shows(watch: Watch, backends: int) -> bool:
    return watch.now == backends


class Clients:
    """That many callers, each of which leases again and again until told to stop."""

    def __init__(self, pool: Pool, to: TenantState, number: int) -> None:
        self.served = 0
        self._stop = False
        self._pool = pool
        self._account = to
        self.tasks = in_background(self._work, number, "client")

    def have_served(self, number: int) -> bool:
        return self.served > number

    async def _work(self) -> None:
        while not self._stop:
            async with lent(self._pool, self._account) as connection:
                await connection.raw.fetchval("SELECT pg_sleep(0.005)")
                self.served += 1

    async def stop(self) -> None:
        self._stop = True
        results = await finished(self.tasks)
        assert not [result for result in results if result is not None]


async def test_back_ends_follow_every_size_under_forty_clients(
    bench: Bench, database: Database
) -> None:
    pool = bench.pool(4)
    clients = Clients(pool, account(), 40)
    async with watched(database, budget=20) as watch:
        await eventually(lambda: watch.now == 4, because="4 back-ends")
        old = 4
        for new in (12, 2, 20, 3):
            watch.most = 0
            pool.resize(sized(new))
            await eventually(partial(shows, watch, new), because=f"{new} back-ends")
            assert watch.most <= max(old, new)
            watch.most = 0
            await eventually(partial(clients.have_served, clients.served + 20))
            assert watch.most <= new
            old = new
        await clients.stop()
    assert pool.recorder.connections_acquired == pool.recorder.connections_released
    assert pool.recorder.timeouts == pool.recorder.connect_failures == 0


async def test_a_borrower_outlives_a_shrink_and_its_connection_closes_afterwards(
    bench: Bench,
) -> None:
    pool, acme = bench.pool(3), account()
    async with lent(pool, acme) as first, lent(pool, acme) as second, lent(pool, acme):
        pool.resize(sized(1))
        assert pool.metrics.active_connections == 3
        assert await first.raw.fetchval("SELECT 1") == await second.raw.fetchval("SELECT 1")
    assert pool.metrics.total_connections == 1


async def test_no_connection_is_opened_while_more_than_the_new_size_are_borrowed(
    bench: Bench,
) -> None:
    pool, acme = bench.pool(2), account()
    first, second = await pool.acquire(acme, 1), await pool.acquire(acme, 1)
    pool.resize(sized(1))
    waiter = asyncio.create_task(pool.acquire(acme, 5))
    await asyncio.sleep(0)
    pool.release(first, reusable=True)
    await asyncio.sleep(0)
    assert not waiter.done()
    pool.release(second, reusable=True)
    assert await waiter is second
    pool.release(second, reusable=True)
    assert pool.recorder.connections_opened == 2


async def test_a_shrink_and_a_grow_in_quick_succession_lose_nothing(
    bench: Bench, database: Database
) -> None:
    pool = bench.pool(6)
    clients = Clients(pool, account(), 20)
    async with watched(database, budget=6) as watch:
        await eventually(lambda: watch.now == 6)
        for size in (1, 6, 2, 5, 1, 6):
            pool.resize(sized(size))
            await asyncio.sleep(0.002)
        await eventually(lambda: watch.now == 6)
        await clients.stop()


async def test_a_grown_pool_serves_who_waits_at_once(bench: Bench) -> None:
    pool, acme = bench.pool(1), account()
    async with lent(pool, acme):
        waiter = asyncio.create_task(pool.acquire(acme, 5))
        await asyncio.sleep(0)
        pool.resize(sized(2))
        pool.release(await waiter, reusable=True)
    assert pool.metrics.total_connections == 2


async def test_a_raised_min_size_opens_connections_and_a_lowered_one_lets_them_go(
    bench: Bench,
) -> None:
    pool = bench.pool(5, idle_timeout=0.0)
    pool.resize(sized(5, min_size=3))
    await eventually(lambda: pool.metrics.idle_connections == 3)
    far = asyncio.get_running_loop().time() + 100
    assert pool.close_expired(far) == 0
    pool.resize(sized(5, min_size=1))
    assert pool.close_expired(far) == 2
    assert pool.metrics.idle_connections == 1


async def test_shrinking_closes_idle_connections_at_once(bench: Bench) -> None:
    pool, acme = bench.pool(4), account()
    async with lent(pool, acme), lent(pool, acme), lent(pool, acme):
        pass
    pool.resize(sized(1))
    assert pool.metrics.total_connections == 1
    await eventually(lambda: bench.server.budget.used == 1)
