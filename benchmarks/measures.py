"""What a lease costs and how long it waits, beside the peers, who take turns in every round."""

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

from app.domain.eviction import EvictionReason
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from benchmarks.figure import Figure, Figures, quantile
from benchmarks.peers import Borrow, asyncpg_pool, nothing, ours, psycopg_pool
from benchmarks.testbed import CONNECTIONS, Testbed, opened, provisioned, tenant

CONCURRENCY = (1, 10, 100)
HOLD = 0.02
# Connections that one tenant floods, and tenants at light load beside it.
_FLOODED = 20
_LIGHT = 50
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


async def ratios(
    mine: Work, theirs: Work, *, rounds: int, times: tuple[int, int], concurrency: int
) -> Figure:
    """Ours ÷ theirs, in alternating rounds after one that does not count."""
    found = []
    for _ in range(rounds + 1):
        one = await seconds_each(mine, times=times[0], concurrency=concurrency)
        other = await seconds_each(theirs, times=times[1], concurrency=concurrency)
        found.append(one / other)
    return Figure.of(found[1:])


def turn(borrow: Borrow) -> Work:
    """Acquire, give others one turn of the loop, release."""

    async def work() -> None:
        async with borrow():
            await asyncio.sleep(0)

    return work


async def acquire(ground: Testbed, rounds: int) -> Figures:
    """Acquire and release, against asyncpg with and without its reset, and against psycopg."""
    async with (
        ground.manager() as manager,
        asyncpg_pool(ground) as plain,
        asyncpg_pool(ground, reset=nothing) as unreset,
        psycopg_pool(ground) as psycopg,
    ):
        pool, account = await opened(manager, "bench")
        mine = turn(ours(pool, account))
        peers = {
            "acquire_vs_asyncpg": (turn(plain.acquire), 500),
            "acquire_vs_asyncpg_noreset": (turn(unreset.acquire), 1500),
            "acquire_vs_psycopg": (turn(psycopg.connection), 1500),
        }
        return {
            key: {
                str(concurrency): await ratios(
                    mine, theirs, rounds=rounds, times=(3000, times), concurrency=concurrency
                )
                for concurrency in CONCURRENCY
            }
            for key, (theirs, times) in peers.items()
        }


async def tenant_transaction(ground: Testbed, rounds: int) -> Figures:
    """A shared tenant's transaction, against the usual way on asyncpg's pool."""
    async with ground.manager() as manager, asyncpg_pool(ground) as pool:
        await opened(manager, "bench")

        async def mine() -> None:
            async with manager.lease("bench") as connection:
                await connection.fetchval("select 1")

        async def theirs() -> None:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("select set_config('app.tenant_id', $1, true)", "bench")
                await connection.fetchval("select 1")

        figures = {
            str(concurrency): await ratios(
                mine, theirs, rounds=rounds, times=(2000, 2000), concurrency=concurrency
            )
            for concurrency in CONCURRENCY
        }
    return {"tenant_tx_vs_asyncpg": figures}


async def queue(ground: Testbed, rounds: int) -> Figures:
    """p99 wait of 100 tasks on 10 connections ÷ the FIFO ideal of 9 holds; asyncpg's beside it."""
    async with ground.manager() as manager, asyncpg_pool(ground) as peer:
        pool, account = await opened(manager, "bench")
        mine, theirs = [], []
        for _ in range(rounds):
            mine.append(await _wait_against_ideal(ours(pool, account)))
            theirs.append(await _wait_against_ideal(peer.acquire))
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


async def many_tenants(ground: Testbed, rounds: int) -> Figures:
    """What a lease costs with 10,000 tenants known ÷ with 10."""
    async with ground.manager() as few, ground.manager() as many:
        for manager, known in ((few, 10), (many, 10_000)):
            await provisioned(manager, "t0", PoolStrategy.SHARED)
            for number in range(1, known):
                manager.put_tenant(tenant(f"t{number}", PoolStrategy.SHARED))
        figure = await ratios(
            _any_lease(many, 10_000),
            _any_lease(few, 10),
            rounds=rounds,
            times=(1500, 1500),
            concurrency=1,
        )
    return {"lease_10k_vs_10": figure}


def _any_lease(manager: TenantPoolManager, known: int) -> Work:
    chance = random.Random(1)

    async def work() -> None:
        async with manager.lease(f"t{chance.randrange(known)}"):
            pass

    return work


async def memory(ground: Testbed, rounds: int) -> Figures:
    """Bytes a known tenant takes after its pool was opened, used and evicted."""
    # So many at a time that the growth of a dictionary, now and then, is not laid upon a few.
    together, per_tenant = 40, []
    async with ground.manager() as other:
        tenants = await ground.own_tenants(other, together * (rounds + 1))
    async with ground.manager() as manager:
        for number in range(rounds + 1):
            batch = tenants[number * together : (number + 1) * together]
            gc.collect()
            tracemalloc.start()
            for made in batch:
                manager.put_tenant(made)
                async with manager.lease(made.spec.id) as connection:
                    await connection.fetchval("select 1")
            for made in batch:
                pool = manager.find(made.spec.id)
                if pool is not None:
                    await manager.evict(pool, EvictionReason.FORCED, 1.0)
            await _forget_timers()
            gc.collect()
            kept, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            per_tenant.append(kept / together)
    return {"bytes_per_known_tenant": Figure.of(per_tenant[1:])}


async def _forget_timers() -> None:
    """Have the loop drop cancelled timers: a hundred stay for a while, and are nobody's."""
    loop = asyncio.get_running_loop()
    for _ in range(200):
        loop.call_later(60, loop.stop).cancel()
    await asyncio.sleep(0)


async def flood(ground: Testbed, rounds: int) -> Figures:
    """Others' p99 wait while one tenant of the same shared pool floods."""
    names = ["noisy", *(f"light{number}" for number in range(_LIGHT))]
    async with ground.manager(budget=_FLOODED, shared_size=_FLOODED) as manager:
        for name in names:
            await provisioned(manager, name, PoolStrategy.SHARED)
        calm, flooded = await _flood(manager, names, rounds)
    return {
        "flood_p99_vs_calm": Figure.of(
            [after / max(before, HOLD) for before, after in zip(calm, flooded, strict=True)]
        ),
        "flood_growth_ms": _growth_ms(calm, flooded),
    }


async def flood_across_pools(ground: Testbed, rounds: int) -> Figures:
    """The same with pools of their own, on a budget that the flood fills."""
    async with ground.manager(budget=_FLOODED, own_size=_FLOODED) as manager:
        tenants = await ground.own_tenants(manager, _LIGHT + 1)
        calm, flooded = await _flood(manager, [made.spec.id for made in tenants], rounds)
    return {"flood_across_pools_growth_ms": _growth_ms(calm, flooded)}


def _growth_ms(calm: Sequence[float], flooded: Sequence[float]) -> Figure:
    growth = zip(calm, flooded, strict=True)
    return Figure.of([(after - before) * 1000 for before, after in growth])


async def _flood(
    manager: TenantPoolManager, names: Sequence[str], rounds: int
) -> tuple[list[float], list[float]]:
    """Others' p99 waits without and with a flood, in rounds after one that does not count.

    The first of *names* keeps ten times the budget of callers waiting; the others lease now and
    then.
    """
    noisy, *light = names
    calm, flooded = [], []
    for number in range(rounds + 1):
        calm.append(await _light_load(manager, light, seed=number))
        noise = [
            asyncio.create_task(_noise(manager, noisy), name=f"noise {n}")
            for n in range(10 * _FLOODED)
        ]
        flooded.append(await _light_load(manager, light, seed=number))
        for task in noise:
            task.cancel()
        await asyncio.gather(*noise, return_exceptions=True)
    return calm[1:], flooded[1:]


async def _noise(manager: TenantPoolManager, name: str) -> None:
    while True:
        async with manager.lease(name, timeout=60.0):
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
