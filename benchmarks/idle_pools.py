"""Many open pools without connections, and how long work over them keeps the event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic, perf_counter, thread_time

from app.control.time_slices import yield_to_loop
from app.domain.desired_pool import DesiredPool
from app.domain.pool import PoolSize
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from benchmarks.testbed import tenant

_NO_CONNECTION = PoolSize(min_size=0, max_size=5, warmup_size=0)
# Opened in one round of the loop.
_TOGETHER = 100


async def open_idle_pools(manager: TenantPoolManager, count: int) -> None:
    """Open pools without connections, each of which has counted something."""
    for number in range(count):
        # Not provisioned, so that no check looks for its role.
        made = replace(tenant(f"p{number:05}", PoolStrategy.PER_TENANT), provisioned_at=None)
        manager.desired.put(
            DesiredPool(
                pool_id=made.spec.id,
                size=_NO_CONNECTION,
                pause=None,
                generation=1,
                updated_at=made.updated_at,
            )
        )
        pool = await manager.open_pool(manager.put_tenant(made), 5.0)
        pool.recorder.record_acquire(0.001 * (number % 7), monotonic())
        pool.recorder.record_release(0.02, monotonic())
        if number % _TOGETHER == 0:
            await yield_to_loop()


class LoopWatch:
    """The longest time that others kept the event loop to themselves, in milliseconds.

    Attributes:
        wall: as it was.
        computing: without what other processes took of the processor meanwhile.
    """

    def __init__(self) -> None:
        self.wall = self.computing = 0.0

    async def watch(self, pause: float = 0.0) -> None:
        """Watch until cancelled, with so many seconds between two looks."""
        while True:
            wall, computing = perf_counter(), thread_time()
            await asyncio.sleep(pause)
            self.wall = max(self.wall, (perf_counter() - wall - pause) * 1000)
            self.computing = max(self.computing, (thread_time() - computing) * 1000)


@asynccontextmanager
async def watched_loop() -> AsyncIterator[LoopWatch]:
    """Watch the loop for a block."""
    watch = LoopWatch()
    task = asyncio.create_task(watch.watch(), name="bench: loop watch")
    await asyncio.sleep(0)
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait({task})
