"""More tenants on a node than it has connections: they take turns."""

import asyncio
import random
from time import perf_counter

import asyncpg

from benchmarks.figure import Figures, Rounds
from benchmarks.nodes.clients import Clients, running
from benchmarks.nodes.site import Node, Site, can_be_measured, site
from benchmarks.testbed import Testbed

_ALLOTMENT = 24
_SIZE = 2
_TENANTS = tuple(f"t{number}" for number in range(120))
# Of them, those that fill the allotment while others are cold.
_BUSY = _ALLOTMENT // _SIZE
_SECONDS = 30.0
_HOLD = 0.01
_COLD = 60
_COLD_PAUSE = 0.25
_CONNECTING = 20


async def cold(_: Testbed, rounds: int) -> Figures:
    """120 tenants on an allotment of 24: back-ends, waits while all work, and of a cold one."""
    if not can_be_measured("nodes_cold"):
        return {}
    found = Rounds()
    for number in range(rounds):
        knobs = {"per_tenant_pool_size": _SIZE}
        async with site(budget=_ALLOTMENT + 6, **knobs) as here:
            await here.add_tenants(_TENANTS)
            node = await here.add_node("edge", limit=_ALLOTMENT)
            async with here.most_backends() as seen:
                await _all_at_once(here, node, found)
                await _one_among_busy_ones(here, node, random.Random(number), found)
            found.add("nodes_cold_backends_vs_allotment", seen.most / _ALLOTMENT)
    return found.figures()


async def _all_at_once(here: Site, node: Node, found: Rounds) -> None:
    """All tenants connect and work at the same time."""
    clients = Clients(here)
    began = perf_counter()
    async with running(*(clients.on_node(node, each, _HOLD) for each in _TENANTS)):
        await asyncio.sleep(_SECONDS)
        ended = perf_counter()
    never = len(_TENANTS) - len(clients.served)
    waits = clients.longest_waits(began, ended) + [_SECONDS] * never
    firsts = [times[0] - began for times in clients.served.values()] + [_SECONDS] * never
    found.add_quantiles("nodes_cold_first_served_s", firsts)
    found.add_quantiles("nodes_cold_longest_wait_s", waits)
    found.add("nodes_cold_transactions_per_s", clients.count / (ended - began))
    found.add("nodes_cold_errors", len(clients.failures), "all at work")


async def _one_among_busy_ones(
    here: Site, node: Node, chance: random.Random, found: Rounds
) -> None:
    """A few tenants use all connections; now and then another one asks for something."""
    busy, idle = _TENANTS[:_BUSY], list(_TENANTS[_BUSY:])
    limit, connections = asyncio.Semaphore(_CONNECTING), dict[str, asyncpg.Connection]()

    async def connect(tenant: str) -> None:
        async with limit:
            connections[tenant] = await here.connect(node, tenant)

    await asyncio.gather(*map(connect, idle))
    clients, waits = Clients(here), []
    work = (clients.on_node(node, each, _HOLD) for each in busy for _ in range(_SIZE))
    async with running(*work):
        await asyncio.sleep(1)
        chance.shuffle(idle)
        for tenant in idle[:_COLD]:
            began = perf_counter()
            await connections[tenant].execute("SELECT 1")
            waits.append(perf_counter() - began)
            await asyncio.sleep(_COLD_PAUSE)
    for connection in connections.values():
        connection.terminate()
    found.add_quantiles("nodes_cold_tenant_s", waits)
    found.add("nodes_cold_errors", len(clients.failures), "one cold")
