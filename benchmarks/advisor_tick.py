"""One tick of the advisor over ten thousand open pools: its processor time, and its longest turn.

Every pool leased meanwhile. What the catalog writes is left out: nothing is recommended twice.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from random import Random
from time import monotonic, perf_counter, process_time, thread_time

from app.pools.manager import TenantPoolManager
from app.runtime.gc_tuning import tuned_gc
from benchmarks.polling import advised_pools
from benchmarks.testbed import testbed

_ROUNDS = 8


def _use(manager: TenantPoolManager, random: Random, share: float) -> None:
    """Count some leases of a share of the pools."""
    for pool in manager.pools():
        if random.random() < share:
            now = monotonic()
            for _ in range(random.randint(1, 10)):
                pool.recorder.record_acquire(random.expovariate(1000), now)
                pool.recorder.record_release(random.expovariate(50), now)


async def _watch(turns: list[float]) -> None:
    """Note how much processor time each turn of the others takes."""
    while True:
        before = thread_time()
        await asyncio.sleep(0)
        turns.append(thread_time() - before)


async def run(share: float) -> None:
    """Tick after tick, each over pools of which *share* were used since the last one."""
    random = Random(1)
    async with testbed() as here, advised_pools(here) as (manager, advisor_loop):
        for number in range(_ROUNDS):
            _use(manager, random, share)
            await asyncio.sleep(0.2)
            advisor_loop._due = 0.0  # noqa: SLF001 - now, not when its interval is over
            turns: list[float] = []
            watching = asyncio.create_task(_watch(turns), name="turns")
            await asyncio.sleep(0)
            cpu, wall = process_time(), perf_counter()
            made = await advisor_loop.tick()
            cpu, wall = process_time() - cpu, perf_counter() - wall
            watching.cancel()
            await asyncio.wait({watching})
            turns.sort()
            sys.stdout.write(
                f"tick {number}: {cpu:.2f} s of CPU, {wall:.2f} s; longest turn"
                f" {turns[-1] * 1000:.1f} ms, then {turns[-2] * 1000:.1f} ms;"
                f" {made} recommendations\n"
            )
            sys.stdout.flush()


def main() -> None:
    """Run it, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--used", type=float, default=1.0, help="share of pools in use, 0 to 1")
    with tuned_gc():
        asyncio.run(run(parser.parse_args().used))


if __name__ == "__main__":
    main()
