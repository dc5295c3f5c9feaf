"""More tenants than connections: what each gets, and what a lease costs meanwhile.

Every tenant is one client in a closed loop of `select 1`. A round measures all numbers of tenants,
ours and, in every other round, PgBouncer's by turns; a ratio is one of figures of the same round.
"""

import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from time import perf_counter

from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from benchmarks.closed_loop import Outcome, Transaction, closed_loop
from benchmarks.figure import Figures, Rounds
from benchmarks.pgbouncer import PgBouncer, installed
from benchmarks.testbed import Testbed, provisioned, tenant

BUDGET = 20
_PATIENCE = 60.0
_THINKING = 0.02
_THINKING_SECONDS = 6.0
_SHARED_TENANTS = (20, 100, 1000, 5000)
_SHARED_SECONDS = 2.0
_WEIGHT = 3
_WEIGHTED_TENANTS = 100
_WEIGHTED_SECONDS = 10.0
_STORM_TENANTS = 2000
_STORM_CALLERS = 300
_STORM_POOLS = 20
_STORM_BUDGET = 60
_STORM_SECONDS = 12.0
_LOGIN_CLIENTS = 18
_LOGIN_SECONDS = 3.0

# Who serves so many tenants, and what one of them does with how much patience in seconds.
Contender = Callable[[int, float], AbstractAsyncContextManager[tuple[Transaction, list[str]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """So many tenants for some seconds; one gives up after so many seconds of waiting."""

    tenants: int
    seconds: float
    patience: float


# Long enough that every tenant has several turns.
_FEW = Run(tenants=20, seconds=3.0, patience=5.0)
_MANY = Run(tenants=100, seconds=10.0, patience=5.0)
_VERY_MANY = Run(tenants=400, seconds=12.0, patience=10.0)


def lease(manager: TenantPoolManager, patience: float) -> Transaction:
    """A lease of ours."""

    async def transaction(name: str) -> float:
        async with manager.lease(name, timeout=patience) as connection:
            got = perf_counter()
            await connection.fetchval("select 1")
        return got

    return transaction


async def own(here: Testbed, rounds: int) -> Figures:
    """Tenants with login roles and pools of their own on a budget of 20, and PgBouncer's."""
    return await _contended(here, rounds, "contended_own", (_FEW, _MANY, _VERY_MANY))


async def thinking(here: Testbed, rounds: int) -> Figures:
    """The same with tenants that pause for 20 ms between leases."""
    runs = (_FEW, replace(_MANY, seconds=_THINKING_SECONDS))
    return await _contended(here, rounds, "contended_thinking", runs, pause=_THINKING)


async def _contended(
    here: Testbed, rounds: int, key: str, runs: tuple[Run, ...], *, pause: float = 0.0
) -> Figures:
    found = Rounds()
    async with AsyncExitStack() as stack:
        contenders: dict[str, Contender] = {key: _ours(here)}
        if (program := installed()) is None:
            sys.stdout.write(f"{key}: PgBouncer is not installed here, so it is not measured.\n")
        else:
            users = await _users(here, max(run.tenants for run in runs))
            bouncer = PgBouncer(program, here.address, users, budget=BUDGET)
            contenders[f"{key}_pgbouncer"] = (await stack.enter_async_context(bouncer)).serve
        for number in range(rounds):
            async with here.most_backends() as seen:
                for run in runs:
                    for contender, serve in contenders.items():
                        if contender != key and number % 2:
                            continue
                        outcome = await _run(serve, run, pause)
                        found.add(f"{contender}_per_s", outcome.per_second, run.tenants)
                        found.add(f"{contender}_longest_wait_s", outcome.longest_wait, run.tenants)
                        found.add(f"{contender}_timeouts", outcome.failed, run.tenants)
                        if contender == key:
                            found.add(f"{key}_cpu_ms", outcome.cpu * 1000, run.tenants)
                            found.add(f"{key}_jain", outcome.jain, run.tenants)
            found.add(f"{key}_backends_vs_budget", seen.most / BUDGET)
    for contender in contenders:
        found.add_ratios(f"{contender}_vs_20", f"{contender}_per_s", base=_FEW.tenants)
    found.add_ratios(f"{key}_cpu_vs_20", f"{key}_cpu_ms", base=_FEW.tenants)
    return found.figures()


async def _run(serve: Contender, run: Run, pause: float) -> Outcome:
    async with serve(run.tenants, run.patience) as (transaction, names):
        return await closed_loop(
            transaction, names, run.seconds, patience=run.patience, pause=pause
        )


def _ours(here: Testbed) -> Contender:
    @asynccontextmanager
    async def serve(count: int, patience: float) -> AsyncIterator[tuple[Transaction, list[str]]]:
        async with here.manager(
            budget=BUDGET, own_size=2, max_pools=10_000, acquire_timeout=patience
        ) as manager:
            tenants = await here.own_tenants(manager, count)
            yield lease(manager, patience), [made.spec.id for made in tenants]

    return serve


async def _users(here: Testbed, count: int) -> dict[str, str]:
    async with here.manager() as manager:
        return here.users(manager, await here.own_tenants(manager, count))


async def weights(here: Testbed, rounds: int) -> Figures:
    """Half of 100 tenants have three times the weight: their connection-seconds ÷ (3 × theirs)."""
    found = Rounds()
    for _ in range(rounds):
        async with here.manager(budget=BUDGET, own_size=2, max_pools=10_000) as manager:
            tenants = await here.own_tenants(manager, _WEIGHTED_TENANTS)
            heavy = [made.spec.id for made in tenants[::2]]
            light = [made.spec.id for made in tenants[1::2]]
            for made in tenants[::2]:
                manager.put_tenant(replace(made, spec=replace(made.spec, weight=_WEIGHT)))
            outcome = await closed_loop(
                lease(manager, _PATIENCE), [*heavy, *light], _WEIGHTED_SECONDS
            )
        shares = [sum(outcome.held[name] for name in names) for names in (heavy, light)]
        # A class may get nothing at all.
        found.add("contended_weights_vs_3_to_1", shares[0] / (_WEIGHT * max(shares[1], 0.001)))
    return found.figures()


async def shared(here: Testbed, rounds: int) -> Figures:
    """20 to 5,000 tenants in one shared pool of 20: processor time of a lease ÷ with 20."""
    found, key = Rounds(), "contended_shared"
    names = [f"t{number}" for number in range(max(_SHARED_TENANTS))]
    async with here.manager(shared_size=BUDGET, max_waiting=10_000) as manager:
        await provisioned(manager, names[0], PoolStrategy.SHARED)
        for name in names[1:]:
            manager.put_tenant(tenant(name, PoolStrategy.SHARED))
        for _ in range(rounds):
            for count in _SHARED_TENANTS:
                outcome = await closed_loop(
                    lease(manager, _PATIENCE), names[:count], _SHARED_SECONDS
                )
                found.add(f"{key}_per_s", outcome.per_second, count)
                found.add(f"{key}_cpu_ms", outcome.cpu * 1000, count)
    found.add_ratios(f"{key}_cpu_vs_20", f"{key}_cpu_ms", base=_SHARED_TENANTS[0])
    return found.figures()


async def storm(here: Testbed, rounds: int) -> Figures:
    """300 callers at random to 2,000 tenants where 20 pools may be open ÷ bare logins."""
    found, key = Rounds(), "contended_storm"
    chance = random.Random(1)
    async with here.manager(budget=_STORM_BUDGET, max_pools=_STORM_POOLS, own_size=5) as manager:
        tenants = await here.own_tenants(manager, _STORM_TENANTS)
        users = here.users(manager, tenants)
        usual = await _usual_role(here)
        one_lease = lease(manager, 5.0)
        callers = [str(number) for number in range(_STORM_CALLERS)]

        async def call(_: str) -> float:
            return await one_lease(chance.choice(tenants).spec.id)

        for _ in range(rounds):
            logins = await bare_logins(here, users)
            usual_logins = await bare_logins(here, usual)
            async with here.most_backends() as seen:
                outcome = await closed_loop(call, callers, _STORM_SECONDS)
            found.add("bare_logins_per_s", logins)
            found.add("usual_logins_per_s", usual_logins)
            found.add(f"{key}_vs_logins", outcome.per_second / logins)
            found.add(f"{key}_vs_usual_logins", outcome.per_second / usual_logins)
            found.add(f"{key}_failed_share", outcome.failed_share)
            found.add(f"{key}_longest_wait_s", outcome.longest_wait)
            found.add(f"{key}_backends_vs_budget", seen.most / _STORM_BUDGET)
    return found.figures()


async def _usual_role(here: Testbed) -> dict[str, str]:
    """A login role whose verifier Postgres made: 4,096 iterations by default, ours have one."""
    user, password = "usual", "of benchmarks"
    async with here.connection() as connection:
        await connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        await connection.execute(
            f"GRANT CONNECT ON DATABASE {here.address.tenant_database} TO {user}"
        )
    return {user: password}


async def bare_logins(here: Testbed, users: dict[str, str]) -> float:
    """Logins a second by asyncpg, each with one statement: what a move cannot beat."""
    chance = random.Random(1)
    roles = list(users)

    async def login(_: str) -> float:
        role = chance.choice(roles)
        began = perf_counter()
        connection = await here.login(role, users[role])
        await connection.fetchval("select 1")
        await connection.close(timeout=5)
        return began

    clients = [str(number) for number in range(_LOGIN_CLIENTS)]
    return (await closed_loop(login, clients, _LOGIN_SECONDS)).per_second
