"""A storm over more tenants than pools: callers at random, evictions all the time, nothing left.

`python -m benchmarks.tenant_storm` provisions the tenants, sends callers at random for a while,
and then looks whether every back-end in Postgres belongs to a pool: a table for people, then one
line of JSON. An unforeseen error, or a back-end in no pool, fails the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from time import perf_counter
from typing import Any

from app.domain.errors import PoolkeeperError
from app.domain.tenant import PoolStrategy
from app.pools.driver import CONNECTION_ERRORS
from app.pools.manager import TenantPoolManager
from benchmarks.testbed import Testbed, provisioned, testbed

_SETTLE_DEADLINE = 30.0
_GLANCE = 0.25
_PATIENCE = 5.0
_GIVES_UP = 0.1

Figures = dict[str, Any]

_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'tenant\\_%'"


async def measure(
    tenants: int, callers: int, max_pools: int, budget: int, seconds: float
) -> Figures:
    """What became of every call, and what is left afterwards."""
    async with (
        testbed() as bench,
        bench.manager(budget=budget, max_pools=max_pools, own_size=5) as manager,
    ):
        names = [f"storm-{number:04}" for number in range(tenants)]
        for name in names:
            await provisioned(manager, name, PoolStrategy.PER_TENANT)
        became = await _storm(manager, names, callers, seconds)
        left = await _left(bench, manager)
        return {
            "tenants": tenants,
            "served": became.pop("served", 0),
            "given_up": became.pop("given_up", 0),
            "unforeseen": {key: became.pop(key) for key in list(became) if key.startswith("!")},
            "refused": dict(became),
            "evictions": manager.evictions.total(),
            **left,
        }


async def _storm(
    manager: TenantPoolManager, names: list[str], callers: int, seconds: float
) -> Counter[str]:
    became: Counter[str] = Counter()
    until = perf_counter() + seconds

    async def call(chance: random.Random) -> None:
        impatience = chance.random() if chance.random() < _GIVES_UP else _PATIENCE * 4
        try:
            async with asyncio.timeout(impatience) as patience:
                async with manager.lease(chance.choice(names), timeout=_PATIENCE) as connection:
                    await connection.fetchval("SELECT 42")
        except PoolkeeperError as error:
            became[type(error).__name__] += 1
        except TimeoutError:
            became["given_up" if patience.expired() else "TimeoutError"] += 1
        except CONNECTION_ERRORS as error:
            became[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 - the answer would be 500
            became[f"! {type(error).__name__}"] += 1
        else:
            became["served"] += 1

    async def caller(number: int) -> None:
        chance = random.Random(number)
        while perf_counter() < until:
            await call(chance)

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(number), name=f"storm: caller {number}")
    return became


async def _left(bench: Testbed, manager: TenantPoolManager) -> Figures:
    """Budget, pools and Postgres, as soon as they agree, or after a while."""
    server = manager.servers["local"]
    began = perf_counter()
    while True:
        async with bench.connection() as connection:
            seen = {pid for [pid] in await connection.fetch(_BACKENDS)}
        open_pools = list(manager.pools())
        held = sum(pool.metrics.total_connections for pool in open_pools)
        took = perf_counter() - began
        agreed = server.budget.used == held == len(seen)
        if agreed or took > _SETTLE_DEADLINE:
            return {
                "budget_used": server.budget.used,
                "in_pools": held,
                "in_postgres": len(seen),
                "in_no_pool": len(seen) - held,
                "agreed_after_s": took,
                "budget_limit": server.budget.limit,
                "open_pools": len(open_pools),
            }
        await asyncio.sleep(_GLANCE)


def main() -> int:
    """Print the figures; the exit status says whether everything went as it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=2000)
    parser.add_argument("--callers", type=int, default=300)
    parser.add_argument("--max-pools", type=int, default=20)
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    figures = asyncio.run(
        measure(given.tenants, given.callers, given.max_pools, given.budget, given.seconds)
    )
    for key, value in figures.items():
        shown = f"{value:.1f}" if isinstance(value, float) else value
        sys.stdout.write(f"{key:28}{shown}\n")
    sys.stdout.write(json.dumps(figures) + "\n")
    agreed = figures["budget_used"] == figures["in_pools"] == figures["in_postgres"]
    return 0 if agreed and not figures["unforeseen"] else 1


if __name__ == "__main__":
    sys.exit(main())
