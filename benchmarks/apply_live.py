"""Twelve tenants on a budget too small for their peak, advised in apply mode: live and simulated.

`python -m benchmarks.apply_live` draws requests for a load that rises from 8 to 28 connections
and falls again, sends each of them at its time (`select pg_sleep(hold)`) through the service on a
real Postgres that applies what its advisor says, and simulates the same ones. It prints what both
say, and fails unless connections agree within 20 %, and late callers within 20 % or one point.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
from dataclasses import dataclass, field
from math import cos, pi
from time import monotonic

import structlog

from app.domain.audit import Actor
from app.domain.errors import PoolSaturated, PoolTimeout
from app.domain.tenant import PoolStrategy, TenantId, TenantSpec
from app.runtime.lifecycle import only_instance
from app.runtime.wiring import Service
from app.settings import Settings
from app.simulator.load import Load, zipf
from app.simulator.outcome import SimulationResult
from app.simulator.rules import RuleName, simulate
from app.simulator.simulation import SimulationConfig
from app.simulator.workload import HoldTimes, Request, Workload
from benchmarks.testbed import bench_folder, testbed

_TENANTS = 12
_BUDGET = 20
_QUIET, _PEAK = 8, 28
_BIN = 5.0
_HOLD = HoldTimes(mean=0.15, cv=1.0)
_NEAR = 0.2
_PERSON = Actor(name="benchmark")
_SAMPLE = 0.25


@dataclass(slots=True)
class Live:
    """What callers of the service saw, and how many connections were open."""

    late_after: float
    requests: int = 0
    late: int = 0
    failed: int = 0
    open: list[int] = field(default_factory=list)

    @property
    def late_share(self) -> float:
        return (self.late + self.failed) / self.requests

    @property
    def connections(self) -> float:
        return sum(self.open) / len(self.open)

    async def request(self, service: Service, tenant: str, seconds: float) -> None:
        """Borrow a connection, keep it busy for *seconds*, and note whether it came late."""
        self.requests += 1
        asked = monotonic()
        try:
            async with service.manager.lease(tenant) as connection:
                self.late += monotonic() - asked > self.late_after
                await connection.execute("select pg_sleep($1)", seconds)
        except (PoolTimeout, PoolSaturated):
            self.failed += 1

    async def watch(self, service: Service) -> None:
        """Count open connections until cancelled."""
        while True:
            self.open.append(service.manager.servers["local"].budget.used)
            await asyncio.sleep(_SAMPLE)


def wave(seconds: float) -> Load:
    """From what `_QUIET` connections serve to what `_PEAK` would, and back, once."""
    middle, swing = (_QUIET + _PEAK) / 2, (_PEAK - _QUIET) / 2
    bins = int(seconds / _BIN)
    needed = [middle - swing * cos(2 * pi * place / bins) for place in range(bins)]
    return zipf([each / _HOLD.mean for each in needed], _BIN, _TENANTS)


async def live(load: Load, requests: list[Request], late_after: float) -> Live:
    """Every one of *requests* at its time."""
    seen = Live(late_after)
    async with testbed() as here:
        with bench_folder() as folder:
            at = {
                "host": here.address.host,
                "port": here.address.port,
                "user": here.address.user,
                "password": here.address.password,
                "tls": "disable",
            }
            settings = Settings.model_validate(
                {
                    "data_dir": folder / "data",
                    "servers": {"local": {**at, "budget": _BUDGET}},
                    "catalog": {**at, "database": here.address.catalog_database},
                    "advisor_mode": "apply",
                    "port": 1,
                }
            )
            async with only_instance(settings) as service:
                for each in load.tenants:
                    await _provision(service, each.name)
                await _send(service, load, requests, seen)
    return seen


async def _provision(service: Service, name: str) -> None:
    spec = TenantSpec(id=TenantId(name), server="local", strategy=PoolStrategy.PER_TENANT)
    await service.declarations.put(spec.id, lambda _: spec, _PERSON)
    await service.provisioning.provision(service.manager.tenants.state(name), _PERSON)


async def _send(service: Service, load: Load, requests: list[Request], seen: Live) -> None:
    watching = asyncio.create_task(seen.watch(service), name="live: watch")
    began = monotonic()
    async with asyncio.TaskGroup() as group:
        for at, place, hold in requests:
            await asyncio.sleep(max(0.0, began + at - monotonic()))
            name = load.tenants[place].name
            group.create_task(seen.request(service, name, hold), name=f"live: {name}")
    watching.cancel()
    await asyncio.wait({watching})


def simulated(load: Load, seed: int, connect: float) -> SimulationResult:
    """The same from the simulator."""
    world = SimulationConfig(seed=seed, holds=_HOLD, budget=_BUDGET, connect=connect)
    return simulate(RuleName.DEMAND, load, world)


def main() -> int:
    """Print both; the exit status says whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240.0, help="of the whole load")
    parser.add_argument("--seed", type=int, default=1, help="of the requests")
    parser.add_argument("--connect", type=float, default=0.01, help="simulated seconds of a login")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    load = wave(options.seconds)
    model = simulated(load, options.seed, options.connect)
    world = SimulationConfig(holds=_HOLD)
    requests = Workload(load, _HOLD, world.arrivals, options.seed).before(load.seconds)
    with contextlib.suppress(KeyboardInterrupt):
        return _compare(asyncio.run(live(load, requests, world.late)), model)
    return 130


def _compare(seen: Live, model: SimulationResult) -> int:
    rows = (
        ("connections", seen.connections, model.avg_connections, 0.0),
        ("late_share", seen.late_share, model.late_share, 0.01),
        ("failed", float(seen.failed), float(model.timeouts + model.rejected), float("inf")),
    )
    sys.stdout.write(f"{seen.requests} requests, a budget of {_BUDGET}\n")
    sys.stdout.write(f"{'':14}{'live':>12}{'simulated':>12}\n")
    agree = True
    for name, real, said, points in rows:
        agree = agree and abs(said - real) <= max(_NEAR * real, points)
        sys.stdout.write(f"{name:14}{real:>12.4g}{said:>12.4g}\n")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
