"""More tenants than connections: what a lease costs while most of them wait.

`python -m benchmarks.contention` drives tenants in closed loops of `select 1`: in one shared pool
of 20, and with pools of their own on a budget of 20. Beside them PgBouncer does the same with
`max_db_connections` 20 where it is installed, and bare logins bound whatever logs in anew when a
connection changes its tenant. A table for people, then one line of JSON; compare ratios within a
run. `docs/benchmarks.md` keeps the figures of earlier commits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from time import perf_counter, process_time

import asyncpg
import structlog

from app.domain.errors import Unavailable
from app.domain.tenant import PoolStrategy
from app.pools.isolation.credentials import Credentials
from app.pools.manager import TenantPoolManager
from benchmarks.figure import quantile
from benchmarks.pgbouncer import PgBouncer, installed
from benchmarks.testbed import SECRET, Testbed, provisioned, tenant, testbed

BUDGET = 20
SHARED_TENANTS = (20, 100, 1000, 5000)
OWN_TENANTS = (20, 100, 400)
_PATIENCE = 60.0
_PAUSE_AFTER_REFUSAL = 0.01

# Names what it works for, waits its turn, and works; gives the seconds it waited.
Transaction = Callable[[str], Awaitable[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contended:
    """What so many tenants got, each with one client in a closed loop.

    Attributes:
        per_second: leases (or transactions) a second, of all tenants together.
        cpu_ms: processor time of this process for each, milliseconds.
        p99_wait_ms: the wait before one, 99th percentile, milliseconds.
        longest_wait_ms: each tenant's longest wait, 99th percentile over tenants, milliseconds.
        jain: Jain's index of leases by tenant (1: all got the same).
        refused: how many got none in their patience.
    """

    tenants: int
    per_second: float
    cpu_ms: float
    p99_wait_ms: float
    longest_wait_ms: float
    jain: float
    refused: int


async def contended(turn: Transaction, names: Sequence[str], seconds: float) -> Contended:
    """Let every one of *names* take turns for *seconds*."""
    waits: dict[str, list[float]] = {name: [] for name in names}
    refused = 0
    ends = perf_counter() + seconds

    async def loop(name: str) -> None:
        nonlocal refused
        while perf_counter() < ends:
            try:
                waits[name].append(await turn(name))
            except (Unavailable, TimeoutError):
                refused += 1
                await asyncio.sleep(_PAUSE_AFTER_REFUSAL)

    cpu, began = process_time(), perf_counter()
    await asyncio.gather(*(loop(name) for name in names))
    took, cpu = perf_counter() - began, process_time() - cpu
    counts = [len(each) for each in waits.values()]
    done = max(1, sum(counts))
    return Contended(
        tenants=len(names),
        per_second=round(done / took, 1),
        cpu_ms=round(cpu / done * 1000, 3),
        p99_wait_ms=_milliseconds(
            quantile([wait for each in waits.values() for wait in each], 0.99)
        ),
        longest_wait_ms=_milliseconds(
            quantile([max(each, default=took) for each in waits.values()], 0.99)
        ),
        jain=round(done**2 / (len(counts) * sum(count**2 for count in counts)), 3),
        refused=refused,
    )


def leasing(manager: TenantPoolManager) -> Transaction:
    """A lease of ours."""

    async def turn(name: str) -> float:
        asked = perf_counter()
        async with manager.lease(name, timeout=_PATIENCE) as connection:
            waited = perf_counter() - asked
            await connection.fetchval("select 1")
        return waited

    return turn


async def shared(here: Testbed, count: int, seconds: float) -> Contended:
    """Tenants of one shared pool."""
    names = [f"t{number}" for number in range(count)]
    async with here.manager(shared_size=BUDGET, max_waiting=10_000) as manager:
        await provisioned(manager, names[0], PoolStrategy.SHARED)
        for name in names[1:]:
            manager.put_tenant(tenant(name, PoolStrategy.SHARED))
        return await contended(leasing(manager), names, seconds)


async def own(here: Testbed, count: int, seconds: float) -> Contended:
    """Tenants with login roles and pools of their own."""
    async with provisioned_tenants(here, count) as (manager, names):
        return await contended(leasing(manager), names, seconds)


@asynccontextmanager
async def provisioned_tenants(
    here: Testbed, count: int
) -> AsyncIterator[tuple[TenantPoolManager, list[str]]]:
    """A manager on the budget, and so many tenants with login roles of their own."""
    names = [f"p{number}" for number in range(count)]
    async with here.manager(budget=BUDGET, own_size=2, max_pools=10_000) as manager:
        for name in names:
            await provisioned(manager, name, PoolStrategy.PER_TENANT)
        yield manager, names


async def pgbouncer(here: Testbed, seconds: float) -> tuple[float, list[Contended]]:
    """Bare logins a second, and the same tenants through PgBouncer."""
    async with provisioned_tenants(here, max(OWN_TENANTS)) as (manager, names):
        isolation = manager.isolations[PoolStrategy.PER_TENANT]
        roles = [isolation.role(manager.tenant_state(name).tenant.spec) for name in names]
    credentials = Credentials(SECRET)
    users = {role: credentials.password("local", role) for role in roles}
    database = here.address.tenant_database
    logins = await bare_logins(here, users, seconds)
    found = installed()
    if found is None:
        return logins, []
    figures = []
    async with PgBouncer(found, here.address, users, most=BUDGET) as bouncer:
        for count in OWN_TENANTS:
            connections = {
                role: await asyncpg.connect(
                    host=bouncer.host,
                    port=bouncer.port,
                    user=role,
                    password="unused",  # noqa: S106 - it trusts loopback
                    database=database,
                    statement_cache_size=0,
                    passfile=os.devnull,
                )
                for role in roles[:count]
            }

            async def turn(role: str) -> float:
                asked = perf_counter()
                await connections[role].execute("select 1", timeout=_PATIENCE)  # noqa: B023
                return perf_counter() - asked

            try:
                figures.append(await contended(turn, roles[:count], seconds))
            finally:
                for connection in connections.values():
                    connection.terminate()
    return logins, figures


async def bare_logins(here: Testbed, users: dict[str, str], seconds: float) -> float:
    """Logins a second, each with one statement, by 18 clients."""
    done, ends, roles = 0, perf_counter() + seconds, list(users)

    async def loop(number: int) -> None:
        nonlocal done
        while perf_counter() < ends:
            role = roles[(number * 37 + done) % len(roles)]
            connection = await asyncpg.connect(
                host=here.address.host,
                port=here.address.port,
                user=role,
                password=users[role],
                database=here.address.tenant_database,
                passfile=os.devnull,
            )
            await connection.fetchval("select 1")
            await connection.close(timeout=5)
            done += 1

    began = perf_counter()
    await asyncio.gather(*(loop(number) for number in range(18)))
    return round(done / (perf_counter() - began), 1)


async def main(seconds: float) -> dict[str, object]:
    """Every measure, on one server; a line each as it is known."""
    figures: dict[str, object] = {}
    async with testbed() as here:
        for key, measure, counts in (
            ("contended_shared", shared, SHARED_TENANTS),
            ("contended_own", own, OWN_TENANTS),
        ):
            for count in counts:
                figures[f"{key}_{count}"] = asdict(_shown(key, await measure(here, count, seconds)))
        figures["bare_logins_per_second"], bouncer = await pgbouncer(here, seconds)
        for figure in bouncer:
            key = "contended_pgbouncer"
            figures[f"{key}_{figure.tenants}"] = asdict(_shown(key, figure))
        if not bouncer:
            sys.stdout.write("PgBouncer is not installed here: not measured\n")
    return figures


def _shown(key: str, figure: Contended) -> Contended:
    sys.stdout.write(
        f"{key:20}{figure.tenants:>6} tenants {figure.per_second:>8} /s {figure.cpu_ms:>8} ms CPU "
        f"p99 {figure.p99_wait_ms:>8} ms  longest {figure.longest_wait_ms:>8} ms  "
        f"Jain {figure.jain}  refused {figure.refused}\n"
    )
    sys.stdout.flush()
    return figure


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each measure lasts")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    result = asyncio.run(main(parser.parse_args().seconds))
    sys.stdout.write(json.dumps(result) + "\n")
