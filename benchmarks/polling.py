"""One poll over ten thousand open pools: the longest time it keeps the event loop to itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic, perf_counter, thread_time

from app.catalog.catalog import Catalog
from app.catalog.database import CatalogAddress
from app.catalog.migrate import migrate
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.advisor.auto_apply import AutoApply, AutoApplyLimits
from app.control.advisor.observer import Observer
from app.control.advisor.recommendation_applier import RecommendationApplier
from app.control.advisor.recommendation_store import RecommendationStore
from app.control.audit.outbox import AuditOutbox
from app.control.monitoring.poller import Poller
from app.control.monitoring.snapshot import Snapshots
from app.control.operation import KeyedLocks
from app.control.pools.desired_state import DesiredPoolState
from app.control.pools.operations import PoolOperations
from app.control.pools.role_limits import RoleLimits
from app.domain.advisor import PoolPressureMonitorConfig
from app.domain.desired_state import AdvisorSettings, DesiredPool
from app.domain.pool import PoolSize
from app.domain.tenant import AdvisorMode, PoolStrategy
from app.pools.event_loop_lag import EventLoopLag
from app.pools.manager import TenantPoolManager
from app.pools.server_load import ServerLoads
from app.runtime.gc_tuning import tuned_gc
from benchmarks.figure import Figure, Figures
from benchmarks.testbed import Testbed, tenant

_POOLS = 10_000
_NO_CONNECTION = PoolSize(min_size=0, max_size=5, warmup_size=0)


@dataclass(slots=True)
class _Turns:
    """The longest turn of the loop, in seconds: as it was, and what of it we computed."""

    wall: float = 0.0
    computing: float = 0.0

    async def watch(self) -> None:
        """Take a turn of the loop again and again, and see how long the others took."""
        while True:
            wall, computing = perf_counter(), thread_time()
            await asyncio.sleep(0)
            self.wall = max(self.wall, perf_counter() - wall)
            self.computing = max(self.computing, thread_time() - computing)


async def longest_turn(ground: Testbed, rounds: int) -> Figures:
    """The longest turn of the loop within a poll, in milliseconds.

    The second figure leaves out what other processes took of the processor meanwhile.
    """
    walls, computing = [], []
    with tuned_gc():
        async with ground.manager(max_pools=_POOLS) as manager:
            await _open_pools(manager)
            async with _control(ground, manager) as (poller, _):
                for number in range(rounds + 1):
                    turns = await _watched(poller)
                    if number:
                        walls.append(turns.wall * 1000)
                        computing.append(turns.computing * 1000)
    return {
        "poll_10k_longest_turn_ms": Figure.of(walls),
        "poll_10k_longest_turn_computing_ms": Figure.of(computing),
    }


async def _watched(poller: Poller) -> _Turns:
    turns = _Turns()
    watching = asyncio.create_task(turns.watch(), name="longest turn")
    await poller.run_once()
    watching.cancel()
    await asyncio.wait({watching})
    return turns


async def _open_pools(manager: TenantPoolManager) -> None:
    """Pools without connections, each of which has counted something."""
    for number in range(_POOLS):
        made = tenant(f"p{number}", PoolStrategy.PER_TENANT)
        name = made.spec.id
        manager.set_desired(
            DesiredPool(
                pool_id=name,
                size=_NO_CONNECTION,
                pause=None,
                generation=1,
                updated_at=made.updated_at,
            )
        )
        pool = await manager.open_pool(manager.put_tenant(made), 5.0)
        pool.recorder.record_acquire(0.001 * (number % 7), monotonic())
        pool.recorder.record_release(0.02, monotonic())


@asynccontextmanager
async def advised_pools(ground: Testbed) -> AsyncIterator[tuple[TenantPoolManager, AdvisorLoop]]:
    """Ten thousand open pools, and the advisor as the service has it."""
    async with ground.manager(max_pools=_POOLS, budget=5 * _POOLS) as manager:
        await _open_pools(manager)
        async with _control(ground, manager) as (_, advisor_loop):
            yield manager, advisor_loop


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
    try:
        locks = KeyedLocks()
        outbox = AuditOutbox(catalog)
        desired = DesiredPoolState(catalog, manager, RoleLimits(manager), outbox, locks)
        operations = PoolOperations(manager, desired, outbox)
        settings = AdvisorSettings(
            mode=AdvisorMode.RECOMMEND,
            hysteresis=PoolPressureMonitorConfig(enabled=True),
            demand_interval_ms=100,
        )
        store = RecommendationStore(catalog, manager)
        applier = RecommendationApplier(manager, desired, store)
        auto_apply = AutoApply(catalog, operations, applier, AutoApplyLimits())
        observer = Observer(manager, ServerLoads(manager.servers))
        advisor_loop = AdvisorLoop(
            catalog, manager, settings, observer=observer, store=store, auto_apply=auto_apply
        )
        snapshots = Snapshots(manager, catalog, EventLoopLag())
        yield Poller(catalog, manager, advisor_loop, outbox, snapshots), advisor_loop
    finally:
        await catalog.close()
