"""What a node estimates of waits, beside those that its clients saw under loads of all kinds."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import time
from typing import Any

import psycopg

from benchmarks.figure import Figures, Rounds, quantile
from benchmarks.nodes.clients import Clients, running
from benchmarks.nodes.site import Node, Site, can_be_measured, site
from benchmarks.testbed import Testbed

_SIZE = 4
_HOLD = 0.05
# Of each tenant: more than ever wait at a time.
_CONNECTIONS = 100
# Of each tenant in the service itself.
_CALLERS = 12
_CONNECTING = 10
# Estimates look back so long, and the load begins before that.
_ESTIMATED = 60.0
_BEFORE = 6.0
# Of fewer late ones nothing is known.
_LEAST_LATE = 50
# As long as the advisor lets callers wait: what it calls late.
_PATIENCE = 0.1
# The server's clock is ours. A transaction begins there when it has a connection.
_STATEMENT = "SELECT extract(epoch FROM now())::float8, pg_sleep(%s)"

Chance = random.Random
Work = Callable[["Application"], Coroutine[Any, Any, None]]


class Application:
    """A tenant's, whose every wait is known.

    Attributes:
        waits: when each transaction ended, and the seconds for which it waited for a connection.
    """

    def __init__(self) -> None:
        self.waits: list[tuple[float, float]] = []
        self._free: asyncio.LifoQueue[psycopg.AsyncConnection] = asyncio.LifoQueue()

    @asynccontextmanager
    async def connected(self, node: Node, tenant: str, password: str) -> AsyncIterator[None]:
        """Its connections, for a block."""
        limit = asyncio.Semaphore(_CONNECTING)

        async def connect() -> None:
            async with limit:
                connection = await psycopg.AsyncConnection.connect(
                    host="127.0.0.1",
                    port=node.port,
                    user=f"{tenant}.web",
                    password=password,
                    dbname=tenant,
                    passfile=os.devnull,
                    sslmode="disable",
                    autocommit=True,
                    prepare_threshold=None,
                )
                self._free.put_nowait(connection)

        await asyncio.gather(*(connect() for _ in range(_CONNECTIONS)))
        try:
            yield
        finally:
            while not self._free.empty():
                await self._free.get_nowait().close()

    async def ask(self, hold: float) -> None:
        """One transaction that lasts *hold* seconds."""
        connection = await self._free.get()
        try:
            began = time()
            cursor = await connection.execute(_STATEMENT, (hold,))
            [(served, _)] = await cursor.fetchall()
            self.waits.append((time(), max(0.0, served - began)))
        finally:
            self._free.put_nowait(connection)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the clients of a tenant do.

    Attributes:
        rate: transactions a second, at random times; 0: clients come back once they are served.
        together: how many come at each such time.
        hold: how long one lasts, in seconds.
    """

    rate: float = 0.0
    together: Callable[[Chance], int] = lambda _: 1
    hold: Callable[[Chance], float] = lambda chance: chance.expovariate(1.0 / _HOLD)

    async def run(self, application: Application, chance: Chance) -> None:
        """Until cancelled."""
        if not self.rate:
            await asyncio.gather(*(self._come_back(application, chance) for _ in range(12)))
        loop, mean = (
            asyncio.get_running_loop(),
            sum(self.together(chance) for _ in range(999)) / 999,
        )
        due = loop.time()
        async with asyncio.TaskGroup() as group:
            while True:
                due += chance.expovariate(self.rate / mean)
                await asyncio.sleep(max(0.0, due - loop.time()))
                for _ in range(self.together(chance)):
                    group.create_task(application.ask(self.hold(chance)))

    async def _come_back(self, application: Application, chance: Chance) -> None:
        while True:
            await application.ask(self.hold(chance))
            await asyncio.sleep(chance.expovariate(1.0 / (2 * _HOLD)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Loads on one node, and what contends with them.

    Attributes:
        loads: by tenant.
        budget: the connections that the node and the service may have together.
        own: tenants of the service itself, whose callers never stop asking.
    """

    loads: Mapping[str, Load]
    budget: int
    own: Sequence[str] = ()


_ALONE = Scene(
    loads={
        "random": Load(rate=64.0),
        "calm": Load(rate=48.0),
        "even": Load(rate=70.0, hold=lambda _: _HOLD),
        "bursts": Load(rate=52.0, together=lambda chance: chance.randint(1, 5)),
        "returning": Load(),
    },
    budget=5 * _SIZE + 6,
)
# The node gets fewer connections than one tenant's size; than those of two, which take turns.
_CONTENDED = Scene(
    loads={"contended": Load(rate=48.0)}, budget=2 * _SIZE, own=("own-first", "own-second")
)
_IN_TURN = Scene(
    loads={"turn-first": Load(rate=24.0), "turn-second": Load(rate=24.0)},
    budget=2 * _SIZE,
    own=("own-first",),
)


async def estimates(_: Testbed, rounds: int) -> Figures:
    """Mean, p99 and late share of waits that a node estimates ÷ those that its clients saw."""
    if not can_be_measured("nodes_estimates"):
        return {}
    found = Rounds()
    for scene in (_ALONE, _CONTENDED, _IN_TURN):
        async with site(budget=scene.budget, per_tenant_pool_size=_SIZE) as here:
            await here.add_tenants([*scene.loads, *scene.own])
            node = await here.add_node("edge")
            clients = Clients(here)
            callers = (clients.over_http(own, _HOLD) for own in scene.own for _ in range(_CALLERS))
            async with running(*callers):
                for number in range(rounds):
                    async with asyncio.TaskGroup() as group:
                        for tenant, load in scene.loads.items():
                            work = partial(load.run, chance=Chance(number))
                            group.create_task(_measure(here, node, tenant, work, found))
    return found.figures()


async def _measure(
    here: Site,
    node: Node,
    tenant: str,
    work: Callable[[Application], Coroutine[Any, Any, None]],
    found: Rounds,
) -> None:
    application = Application()
    async with application.connected(node, tenant, here.passwords[tenant]):
        async with running(work(application)):
            await asyncio.sleep(_BEFORE + _ESTIMATED)
            [shown] = (await here.ask("GET", f"/v1/tenants/{tenant}/pool"))["nodes"]
            since = time() - _ESTIMATED
        waits = [wait for ended, wait in application.waits if ended > since]
    late = sum(wait > _PATIENCE for wait in waits)
    p99, mean = quantile(waits, 0.99), sum(waits) / len(waits)
    found.add("nodes_estimates_p99_ms", p99 * 1000, tenant)
    found.add("nodes_estimates_p99_vs_seen", shown["wait_p99_ms"] / 1000 / p99, tenant)
    found.add("nodes_estimates_mean_vs_seen", shown["wait_ms"] / 1000 / mean, tenant)
    found.add("nodes_estimates_late_share", late / len(waits), tenant)
    if late >= _LEAST_LATE:
        ratio = shown["late_share"] * len(waits) / late
        found.add("nodes_estimates_late_vs_seen", ratio, tenant)
