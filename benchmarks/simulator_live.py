"""One and the same minute and a half, simulated and on a real Postgres: do they agree?

`python -m benchmarks.simulator_live` draws requests for a load that rises and falls, hands
each of them to a real pool on an embedded server at its time (`select pg_sleep(hold)`), and
simulates the same ones. It prints what both say, and fails if they differ by over 20 %.
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass, field, replace
from time import monotonic

from app.domain.advisor import ServerAdvisor
from app.domain.errors import PoolSaturated, PoolTimeout
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from app.simulator.baselines import StaticRule
from app.simulator.load import Load, single
from app.simulator.simulation import Simulation, SimulationConfig
from app.simulator.workload import HoldTimes, Request, Workload
from benchmarks.figure import quantile
from benchmarks.testbed import provisioned, testbed

_RATES = (20, 30, 46, 48, 30, 20)
_BIN = 15.0
_WORLD = SimulationConfig(holds=HoldTimes(mean=0.15, cv=1.5))
_NEAR = 0.2
_TENANT = "live"


@dataclass(slots=True)
class Live:
    """What callers of the real pool saw."""

    waits: list[float] = field(default_factory=list)
    held: float = 0.0
    failed: int = 0

    async def request(self, manager: TenantPoolManager, seconds: float) -> None:
        """Borrow a connection, keep it busy for *seconds*, and note how long that took."""
        asked = monotonic()
        try:
            async with manager.lease(_TENANT) as connection:
                began = monotonic()
                self.waits.append(began - asked)
                await connection.execute("select pg_sleep($1)", seconds)
            self.held += monotonic() - began
        except (PoolTimeout, PoolSaturated):
            self.failed += 1


async def live(requests: list[Request], size: int) -> Live:
    """Every one of *requests* at its time, to a pool of at most *size* connections."""
    seen = Live()
    async with testbed() as here, here.manager(own_size=size) as manager:
        await provisioned(manager, _TENANT, PoolStrategy.PER_TENANT)
        began = monotonic()
        async with asyncio.TaskGroup() as group:
            for number, (at, _, hold) in enumerate(requests):
                await asyncio.sleep(max(0.0, began + at - monotonic()))
                group.create_task(seen.request(manager, hold), name=f"live: request {number}")
    return seen


def figures_of(seen: Live, load: Load) -> dict[str, float]:
    """What the simulator also tells, from the real pool."""
    late = sum(wait > _WORLD.late for wait in seen.waits) + seen.failed
    waits = seen.waits + [_WORLD.pool.acquire_timeout] * seen.failed
    return {
        "late_share": late / len(waits),
        "p99_wait_ms": quantile(waits, 0.99) * 1000,
        "mean_active": seen.held / load.seconds,
    }


def simulated(load: Load, seed: int, size: int) -> dict[str, float]:
    """The same from the simulator; the pool opens its connections on demand, as the real one."""
    world = replace(_WORLD, seed=seed, pool=replace(_WORLD.pool, start_size=size))
    advisor = ServerAdvisor(StaticRule())
    outcome = Simulation(load, world, lambda _: advisor).run("static")
    return {
        "late_share": outcome.late_share,
        "p99_wait_ms": outcome.p99_wait_ms,
        "mean_active": outcome.active_seconds / outcome.seconds,
    }


def main() -> int:
    """Print both; the exit status says whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    load = single([float(rate) for rate in _RATES], _BIN)
    requests = Workload(load, _WORLD.holds, _WORLD.arrivals, options.seed).before(load.seconds)
    model = simulated(load, options.seed, options.size)
    real = figures_of(asyncio.run(live(requests, options.size)), load)
    sys.stdout.write(f"{len(requests)} requests, {options.size} connections\n")
    sys.stdout.write(f"{'':14}{'live':>12}{'simulated':>12}{'ratio':>8}\n")
    agree = True
    for key, figure in real.items():
        ratio = model[key] / figure if figure else 1.0
        agree = agree and abs(ratio - 1) <= _NEAR
        sys.stdout.write(f"{key:14}{figure:>12.4g}{model[key]:>12.4g}{ratio:>8.2f}\n")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
