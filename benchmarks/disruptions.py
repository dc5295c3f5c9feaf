"""What happens to those who lease while a pool is resized, and while Postgres restarts."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

import asyncpg

from app.domain.errors import PoolkeeperError
from app.domain.pool import PoolSize
from app.domain.tenant import PoolStrategy
from app.embedded import EmbeddedPostgres
from app.pools.driver import CONNECTION_ERRORS
from app.pools.manager import TenantPoolManager
from benchmarks.backends import OF_POOLS
from benchmarks.figure import Figure, Figures
from benchmarks.testbed import Testbed, provisioned

HOLD = 0.02
_SIZES = (4, 12, 2, 20, 3)
_CLIENTS = 40
_BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE " + OF_POOLS  # noqa: S608 - a constant
_FAILURES = (PoolkeeperError, asyncpg.PostgresError, *CONNECTION_ERRORS)
_DEADLINE = 15.0


@dataclass(slots=True)
class Load:
    """Clients that lease again and again, and when each lease was begun that went well or not."""

    manager: TenantPoolManager
    served: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    hung: int = 0
    ending: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self) -> None:
        """Lease for one hold, until the load ends."""
        while not self.ending:
            began = perf_counter()
            try:
                async with self.manager.lease("bench") as connection:
                    await connection.fetchval("SELECT 1")
                    await asyncio.sleep(HOLD)
            except _FAILURES:
                self.failed.append(began)
                await asyncio.sleep(HOLD)
            else:
                self.served.append(began)
                self.moved.set()

    async def served_since(self, moment: float, *, leases: int = 1) -> None:
        """Wait until so many leases begun after *moment* have gone well."""
        async with asyncio.timeout(_DEADLINE):
            while sum(began > moment for began in self.served[-1000:]) < leases:
                self.moved.clear()
                await self.moved.wait()


@asynccontextmanager
async def _load(manager: TenantPoolManager) -> AsyncIterator[Load]:
    load = Load(manager)
    clients = [asyncio.create_task(load.client(), name=f"client {n}") for n in range(_CLIENTS)]
    try:
        yield load
    finally:
        load.ending = True
        _, hung = await asyncio.wait(clients, timeout=_DEADLINE)
        load.hung = len(hung)
        for client in hung:
            client.cancel()


async def resize(ground: Testbed, rounds: int) -> Figures:
    """4 → 12 → 2 → 20 → 3 under 40 clients: the slowest step, the most above it, the failures.

    A step is over when Postgres itself sees as many back-ends as the pool may have; the one hold
    that a lent connection may last is taken off.
    """
    slowest, above, failed = [], [], []
    async with ground.manager(shared_size=_SIZES[0]) as manager, ground.connection() as watch:
        await provisioned(manager, "bench", PoolStrategy.SHARED)
        async with _load(manager) as load:
            await load.served_since(perf_counter(), leases=_CLIENTS)
            pool = await manager.open_pool(manager.tenants.state("bench"), 5.0)
            for _ in range(rounds):
                before, steps = len(load.failed), []
                for size in (*_SIZES[1:], _SIZES[0]):
                    bound = max(size, pool.size.max_size)
                    began = perf_counter()
                    pool.resize(PoolSize(min_size=0, max_size=size, warmup_size=0))
                    most = await _until_as_many(watch, size)
                    steps.append((perf_counter() - began - HOLD, most - bound))
                slowest.append(max(took for took, _ in steps))
                above.append(max(over for _, over in steps))
                failed.append(len(load.failed) - before)
    return {
        "resize_slowest_step_s": Figure.of(slowest),
        "resize_backends_above_bound": Figure.of(above),
        "resize_failed_leases": Figure.of(failed),
    }


async def _until_as_many(watch: asyncpg.Connection, size: int) -> int:
    """Look until there are *size* back-ends; the most there were."""
    most = 0
    async with asyncio.timeout(_DEADLINE):
        while True:
            seen = int(await watch.fetchval(_BACKENDS))
            most = max(most, seen)
            if seen == size:
                return most


async def restart(ground: Testbed, rounds: int) -> Figures:
    """Postgres restarts under 40 clients: how soon after it accepts again a lease goes well.

    Afterwards counts leases begun once that was so.
    """
    modes = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
    took: dict[str, list[float]] = {mode: [] for mode in modes}
    failed, hung = [], []
    for _ in range(rounds):
        for mode, how in modes.items():
            async with ground.manager() as manager:
                await provisioned(manager, "bench", PoolStrategy.SHARED)
                async with _load(manager) as load:
                    await load.served_since(perf_counter(), leases=_CLIENTS)
                    await _restart(ground.postgres, how)
                    accepts = perf_counter()
                    await load.served_since(accepts)
                    healed = perf_counter()
                    took[mode].append(healed - accepts)
                    await load.served_since(healed, leases=5 * _CLIENTS)
                failed.append(sum(began > healed for began in load.failed))
                hung.append(load.hung)
    return {
        "restart_to_first_success_s": {mode: Figure.of(each) for mode, each in took.items()},
        "restart_failed_leases_afterwards": Figure.of(failed),
        "restart_hung_waiters": Figure.of(hung),
    }


async def _restart(postgres: EmbeddedPostgres, how: signal.Signals) -> None:
    """End the server with a signal, and launch it again."""
    if (pid := postgres.pid) is not None:
        os.kill(pid, how)
    while not await postgres.restart_if_crashed():  # noqa: ASYNC110 - another process sets no event
        await asyncio.sleep(0.01)
