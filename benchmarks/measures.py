"""What is measured. Every measure alternates between contenders, round by round."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Awaitable, Callable
from time import perf_counter

from app.domain.tenant import PoolStrategy
from app.pools.eviction import EvictionReason
from app.pools.manager import TenantPoolManager
from benchmarks.figure import Figure, quantile
from benchmarks.peers import Borrow, asyncpg_pool, nothing, ours, psycopg_pool
from benchmarks.testbed import CONNECTIONS, Testbed, provisioned, tenant

ROUNDS = 9
CONCURRENCY = (1, 10, 100)
HOLD = 0.02
# Seconds for which the tenants at light load are watched, with and without a flood.
_WATCHED = 2.5

Work = Callable[[], Awaitable[object]]


async def seconds_each(work: Work, *, times: int, concurrency: int) -> float:
    """Seconds one *work* takes, done *times* by *concurrency* tasks in a closed loop."""

    async def loop() -> None:
        for _ in range(times // concurrency):
            await work()

    began = perf_counter()
    await asyncio.gather(*(loop() for _ in range(concurrency)))
    return (perf_counter() - began) / (times // concurrency * concurrency)


async def ratios(mine: Work, theirs: Work, *, times: tuple[int, int], concurrency: int) -> Figure:
    """Ours ÷ theirs, in alternating rounds after one that does not count."""
    rounds = []
    for number in range(ROUNDS + 1):
        one = await seconds_each(mine, times=times[0], concurrency=concurrency)
        other = await seconds_each(theirs, times=times[1], concurrency=concurrency)
        if number:
            rounds.append(one / other)
    return Figure.of(rounds)


def turn(borrow: Borrow) -> Work:
    """Acquire, give others one turn of the loop, release."""

    async def work() -> None:
        async with borrow():
            await asyncio.sleep(0)

    return work


async def acquire(ground: Testbed) -> dict[str, dict[str, Figure]]:
    """Acquire and release, against asyncpg with and without its reset, and against psycopg."""
    async with (
        ground.manager() as manager,
        asyncpg_pool(ground) as plain,
        asyncpg_pool(ground, reset=nothing) as unreset,
        psycopg_pool(ground) as psycopg,
    ):
        await provisioned(manager, "bench", PoolStrategy.SHARED)
        account = manager.tenant_state("bench")
        pool = await manager.open_pool(account, 5.0)
        mine = turn(ours(pool, account))
        peers = {
            "acquire_vs_asyncpg": (turn(plain.acquire), 1000),
            "acquire_vs_asyncpg_noreset": (turn(unreset.acquire), 3000),
            "acquire_vs_psycopg": (turn(psycopg.connection), 3000),
        }
        return {
            key: {
                str(concurrency): await ratios(
                    mine, theirs, times=(6000, times), concurrency=concurrency
                )
                for concurrency in CONCURRENCY
            }
            for key, (theirs, times) in peers.items()
        }


async def tenant_transaction(ground: Testbed) -> dict[str, Figure]:
    """One tenant's transaction in the shared strategy, against the usual way on asyncpg's pool."""
    async with ground.manager() as manager, asyncpg_pool(ground) as pool:
        await provisioned(manager, "bench", PoolStrategy.SHARED)

        async def mine() -> None:
            async with manager.lease("bench") as connection:
                await connection.fetchval("select 1")

        async def theirs() -> None:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("select set_config('app.tenant_id', $1, true)", "bench")
                await connection.fetchval("select 1")

        return {
            str(concurrency): await ratios(
                mine, theirs, times=(2000, 2000), concurrency=concurrency
            )
            for concurrency in CONCURRENCY
        }


async def queue(ground: Testbed) -> dict[str, Figure]:
    """p99 wait of 100 tasks on 10 connections ÷ the FIFO ideal of 9 holds; asyncpg's beside it."""
    async with ground.manager() as manager, asyncpg_pool(ground) as peer:
        await provisioned(manager, "bench", PoolStrategy.SHARED)
        account = manager.tenant_state("bench")
        pool = await manager.open_pool(account, 5.0)
        mine = [await _wait_against_ideal(ours(pool, account)) for _ in range(ROUNDS)]
        theirs = [await _wait_against_ideal(peer.acquire) for _ in range(3)]
    return {"fifo_p99_vs_ideal": Figure.of(mine), "asyncpg_p99_vs_ideal": Figure.of(theirs)}


async def _wait_against_ideal(borrow: Borrow) -> float:
    waits: list[float] = []
    holds: list[float] = []

    async def loop() -> None:
        for _ in range(15):
            asked = perf_counter()
            async with borrow():
                got = perf_counter()
                await asyncio.sleep(HOLD)
                holds.append(perf_counter() - got)
            waits.append(got - asked)

    tasks = 10 * CONNECTIONS
    await asyncio.gather(*(loop() for _ in range(tasks)))
    ideal = (tasks / CONNECTIONS - 1) * sum(holds) / len(holds)
    return quantile(waits, 0.99) / ideal


async def many_tenants(ground: Testbed) -> Figure:
    """What a lease costs with 10,000 tenants known ÷ with 10."""
    async with ground.manager() as few, ground.manager() as many:
        for manager, known in ((few, 10), (many, 10_000)):
            await provisioned(manager, "t0", PoolStrategy.SHARED)
            for number in range(1, known):
                manager.put_tenant(tenant(f"t{number}", PoolStrategy.SHARED))
        return await ratios(
            _any_lease(many, 10_000), _any_lease(few, 10), times=(1500, 1500), concurrency=1
        )


def _any_lease(manager: TenantPoolManager, known: int) -> Work:
    chance = random.Random(1)

    async def work() -> None:
        async with manager.lease(f"t{chance.randrange(known)}"):
            pass

    return work


async def memory(ground: Testbed) -> Figure:
    """Bytes a known tenant takes after its pool was opened, used and evicted."""
    per_tenant = []
    async with ground.manager() as manager:
        for batch in range(ROUNDS + 1):
            # So many that the growth of a dictionary, now and then, is not laid upon a few.
            names = [f"m{batch}-{number}" for number in range(40)]
            made = [tenant(name, PoolStrategy.PER_TENANT) for name in names]
            isolation = manager.isolations[PoolStrategy.PER_TENANT]
            for one in made:
                await isolation.provision(manager.servers["local"], one, adopt=True)
            gc.collect()
            tracemalloc.start()
            for one in made:
                manager.put_tenant(one)
                async with manager.lease(one.spec.id) as connection:
                    await connection.fetchval("select 1")
            for name in names:
                pool = manager.find(name)
                if pool is not None:
                    await manager.evict(pool, EvictionReason.FORCED, 1.0)
            await _forget_timers()
            gc.collect()
            kept, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            if batch:
                per_tenant.append(kept / len(names))
    return Figure.of(per_tenant)


async def _forget_timers() -> None:
    """Have the loop drop cancelled timers: a hundred stay for a while, and are nobody's."""
    loop = asyncio.get_running_loop()
    for _ in range(200):
        loop.call_later(60, loop.stop).cancel()
    await asyncio.sleep(0)


async def flood(ground: Testbed, strategy: PoolStrategy) -> tuple[Figure, Figure]:
    """Others' p99 wait while one tenant floods ÷ max(without it, one hold); and its growth in ms.

    Fifty tenants lease now and then, one keeps ten times the budget of callers waiting.
    """
    size, against, growth = 20, [], []
    async with ground.manager(budget=size, shared_size=size, own_size=size) as manager:
        names = [f"light{number}" for number in range(50)]
        for name in (*names, "noisy"):
            await provisioned(manager, name, strategy)
        for number in range(ROUNDS + 1):
            calm = await _light_load(manager, names, seed=number)
            noise = [
                asyncio.create_task(_noise(manager), name=f"noise {n}") for n in range(10 * size)
            ]
            flooded = await _light_load(manager, names, seed=number)
            for task in noise:
                task.cancel()
            await asyncio.gather(*noise, return_exceptions=True)
            if number:
                against.append(flooded / max(calm, HOLD))
                growth.append((flooded - calm) * 1000)
    return Figure.of(against), Figure.of(growth)


async def _noise(manager: TenantPoolManager) -> None:
    while True:
        async with manager.lease("noisy", timeout=60.0):
            await asyncio.sleep(HOLD)


def _pauses(chance: random.Random) -> list[float]:
    """Seconds between leases at random, twice a second on average, as long as it is watched."""
    pauses = [chance.expovariate(2.0)]
    while sum(pauses) < _WATCHED:
        pauses.append(chance.expovariate(2.0))
    return pauses[:-1]


async def _light_load(manager: TenantPoolManager, names: list[str], *, seed: int) -> float:
    """p99 wait in seconds of tenants that lease for one hold, about twice a second each."""
    chance = random.Random(seed)
    waits: list[float] = []

    async def now_and_then(name: str) -> None:
        for pause in _pauses(chance):
            await asyncio.sleep(pause)
            asked = perf_counter()
            async with manager.lease(name, timeout=60.0):
                waits.append(perf_counter() - asked)
                await asyncio.sleep(HOLD)

    await asyncio.gather(*(now_and_then(name) for name in names))
    return quantile(waits, 0.99)
