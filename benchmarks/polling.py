"""What the loops cost that look at every pool, with ten thousand open pools."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from time import monotonic, process_time

from app.catalog.catalog import Catalog
from app.catalog.database import CatalogAddress
from app.catalog.migrate import migrate
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.leadership.election import Election
from app.control.leadership.trust import Trust
from app.control.monitoring.poller import Poller
from app.pools.event_loop_lag import EventLoopLag
from app.pools.isolation.role_passwords import RolePasswords
from app.pools.manager import TenantPoolManager
from app.runtime import configuration
from app.runtime.gc_tuning import tuned_gc
from app.runtime.wiring import Service
from app.settings import Settings
from benchmarks.figure import Figures, Rounds
from benchmarks.idle_pools import open_idle_pools, watched_loop
from benchmarks.testbed import SECRET, Testbed

_POOLS = 10_000
_INTERVAL_MS = 100


async def poll(ground: Testbed, rounds: int) -> Figures:
    """One poll over 10,000 open pools: the longest time that the event loop is blocked."""
    found = Rounds()
    with tuned_gc():
        async with _open_pools(ground) as manager, _control(ground, manager) as (poller, _):
            for _ in range(rounds + 1):
                async with watched_loop() as watch:
                    await poller.run_once()
                found.add("poll_10k_longest_turn_ms", watch.wall)
                found.add("poll_10k_longest_turn_computing_ms", watch.computing)
    return found.figures(warm_up=1)


async def advisor_tick(ground: Testbed, rounds: int) -> Figures:
    """One tick of the advisor over 10,000 pools in use: processor time, and its longest turn.

    Nothing is recommended twice, so what the catalog writes is in the first tick alone, which does
    not count.
    """
    found, chance = Rounds(), random.Random(1)
    with tuned_gc():
        async with _open_pools(ground) as manager, _control(ground, manager) as (_, advisor_loop):
            for _ in range(rounds + 1):
                _use(manager, chance)
                await asyncio.sleep(2 * _INTERVAL_MS / 1000)
                advisor_loop._due = 0.0  # noqa: SLF001 - now, not when its interval is over
                async with watched_loop() as watch:
                    cpu = process_time()
                    await advisor_loop.tick()
                    cpu = process_time() - cpu
                found.add("advisor_tick_10k_cpu_ms", cpu * 1000)
                found.add("advisor_tick_10k_longest_turn_computing_ms", watch.computing)
    return found.figures(warm_up=1)


@asynccontextmanager
async def _open_pools(ground: Testbed) -> AsyncIterator[TenantPoolManager]:
    async with ground.manager(max_pools=_POOLS, budget=5 * _POOLS) as manager:
        await open_idle_pools(manager, _POOLS)
        yield manager


def _use(manager: TenantPoolManager, chance: random.Random) -> None:
    """Count some leases of every pool."""
    for pool in manager.pools():
        now = monotonic()
        for _ in range(chance.randint(1, 10)):
            pool.recorder.record_acquire(chance.expovariate(1000), now)
            pool.recorder.record_release(chance.expovariate(50), now)


@asynccontextmanager
async def _control(
    ground: Testbed, manager: TenantPoolManager
) -> AsyncIterator[tuple[Poller, AdvisorLoop]]:
    """The poller and the advisor as the service has them, with a catalog on the same server."""
    address = CatalogAddress(
        host=ground.address.host,
        port=ground.address.port,
        user=ground.address.user,
        password=ground.address.password,
        database=ground.address.catalog_database,
    )
    await migrate(address)
    catalog = Catalog(address)
    settings = Settings.model_construct(advisor_interval_seconds=_INTERVAL_MS / 1000)
    election = Election(address, configuration.instance(settings), Trust(inf), on_lost=lambda: None)
    passwords, lag = RolePasswords(SECRET), EventLoopLag()
    service = Service(settings, manager, catalog, election, passwords, lag=lag)
    try:
        yield service.poller, service.advisor_loop
    finally:
        await catalog.close()
