"""The advisor in apply mode on a real Postgres, while the callers go from few to many and back.

Prints the size over time, and how many callers waited too long in each step. The window in
which a need is remembered is shorter than by default, and more may be given back in a minute, so
that giving back can be seen within minutes.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic

import structlog

from app.domain.audit import Actor
from app.domain.errors import PoolkeeperError
from app.domain.tenant import PoolStrategy, TenantId, TenantSpec
from app.pools.manager import TenantPoolManager
from app.runtime.lifecycle import only_instance
from app.runtime.wiring import Service
from app.settings import Settings

_TENANT = "acme"
_PERSON = Actor(name="benchmark")
_HOLD = 0.05
_THINK = 0.05
_LATE = 0.05
# Half of the size a minute, not a quarter, may be given back here.
_SHRINK = 0.5


@dataclass(slots=True)
class _Waits:
    """How long callers waited in one step."""

    callers: int
    seconds: float
    waits: list[float] = field(default_factory=list)
    failed: int = 0

    def late_share(self, begin: float, end: float, marks: list[float]) -> float:
        """Share of late callers among those that asked between two moments of the step."""
        chosen = [wait for wait, at in zip(self.waits, marks, strict=True) if begin <= at < end]
        return sum(wait > _LATE for wait in chosen) / max(1, len(chosen))


async def _caller(manager: TenantPoolManager, step: _Waits, marks: list[float], seed: int) -> None:
    """Borrow, hold, think, again; until cancelled."""
    random = Random(seed)
    while True:
        asked = monotonic()
        try:
            async with manager.lease(_TENANT) as connection:
                step.waits.append(monotonic() - asked)
                marks.append(asked)
                await connection.execute("select pg_sleep($1)", random.expovariate(1 / _HOLD))
        except PoolkeeperError:
            step.failed += 1
        await asyncio.sleep(random.expovariate(1 / _THINK))


async def _step(service: Service, callers: int, seconds: float, origin: float) -> None:
    """So many callers for so long; tell every five seconds how large the pool is."""
    step, began = _Waits(callers, seconds), monotonic()
    marks: list[float] = []
    tasks = [
        asyncio.create_task(_caller(service.manager, step, marks, seed), name=f"caller {seed}")
        for seed in range(callers)
    ]
    while monotonic() < began + seconds:
        await asyncio.sleep(min(5.0, max(0.1, began + seconds - monotonic())))
        pool = service.manager.find(_TENANT)
        verdict = service.advisor_loop.latest_advice.get(_TENANT)
        now = monotonic()
        late = step.late_share(now - 5.0, now, marks)
        size = pool.size.max_size if pool else 0
        open_ = pool.metrics.total_connections if pool else 0
        why = f"{verdict.advice.reason_code}: {verdict.advice.reason}" if verdict else ""
        sys.stdout.write(
            f"{now - origin:6.1f} s  {callers:3} callers  max_size {size:3}  open {open_:3}"
            f"  late {late:6.1%}  {why}\n"
        )
        sys.stdout.flush()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    half = began + seconds / 2
    sys.stdout.write(
        f"   {callers} callers: late {step.late_share(began, half, marks):.1%} in the first half,"
        f" {step.late_share(half, began + seconds, marks):.1%} in the second;"
        f" {len(step.waits)} leases, {step.failed} failed\n"
    )


async def run(window: float, seconds: float) -> None:
    """4 callers, 40, and 4 again."""
    with tempfile.TemporaryDirectory(prefix="poolkeeper-live-") as folder:
        Path(folder).chmod(0o755)  # noqa: ASYNC240 - before anything else runs
        settings = Settings(data_dir=Path(folder) / "data", advisor_mode="apply", port=1)
        async with only_instance(settings) as service:
            demand = service.advisor_loop.settings.demand
            demand = replace(demand, window_seconds=window, shrink_share=_SHRINK)
            await service.advisor_loop.put_settings(
                partial(replace, demand=demand),
                _PERSON,
            )
            spec = TenantSpec(
                id=TenantId(_TENANT), server="local", strategy=PoolStrategy.PER_TENANT
            )
            await service.declarations.put(spec.id, lambda _: spec, _PERSON)
            await service.provisioning.provision(service.manager.tenants.state(_TENANT), _PERSON)
            origin = monotonic()
            for callers, share in ((4, 0.4), (40, 1.0), (4, 2.4)):
                await _step(service, callers, seconds * share, origin)
            page = await service.catalog.recommendations.page(limit=100)
            sys.stdout.write(f"{len(page)} recommendations\n")
            for each in reversed(page):
                sys.stdout.write(
                    f"  {each.status}: {each.max_size} -> {each.advice.new_size},"
                    f" {each.advice.reason_code}, by {each.closed_by}\n"
                )


def main() -> None:
    """Run it, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window", type=float, default=30.0, help="seconds a need is remembered")
    parser.add_argument("--step", type=float, default=50.0, help="seconds of the middle step")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(options.window, options.step))


if __name__ == "__main__":
    main()
