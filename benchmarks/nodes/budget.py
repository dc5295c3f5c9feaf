"""One budget for two nodes and the service's own pools, while connections move all the time."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from time import perf_counter

from benchmarks.figure import Figures, Rounds
from benchmarks.http_load import HttpConnection, get
from benchmarks.nodes.clients import Clients, running
from benchmarks.nodes.site import Node, Site, can_be_measured, site
from benchmarks.testbed import Testbed

_BUDGET = 24
_TENANTS = tuple(f"t{number}" for number in range(8))
# Of each tenant, on each node and over HTTP: 96 together.
_CLIENTS = 4
_SECONDS = 60.0
_HOLD = 0.02
_HOLD_OVER_HTTP = 0.05
_LOOK_SECONDS = 0.02
_LEAST, _MOST = 2, 12
_MOST_SIZE = 6


@dataclass(slots=True)
class _Shrinks:
    """How long a node's smaller allotments took: from when it was sent until it was observed."""

    seconds: list[float] = field(default_factory=list)

    async def watch(self, here: Site, node: Node) -> None:
        """Look at what the service shows of *node*, until cancelled."""
        connection = await HttpConnection.connect(here.service.target.port)
        request = get(f"/v1/nodes/{node.name}")
        before, since = 0, None
        try:
            while True:
                _, body = await connection.ask(request)
                [shown] = json.loads(body)["servers"]
                now = perf_counter()
                if since is None and shown["allotment"] < before:
                    since = now
                if since is not None and shown["held"] <= shown["allotment"]:
                    self.seconds.append(now - since)
                    since = None
                before = shown["allotment"]
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            connection.close()


async def budget(_: Testbed, rounds: int) -> Figures:
    """Two nodes and own pools on a budget of 24 while sizes move: back-ends, errors, shrinks."""
    if not can_be_measured("nodes_budget"):
        return {}
    found = Rounds()
    for number in range(rounds):
        async with site(budget=_BUDGET) as here:
            await here.add_tenants(_TENANTS)
            nodes = [await here.add_node(name) for name in ("one", "two")]
            await _measure(here, nodes, random.Random(number), found)
    return found.figures()


async def _measure(here: Site, nodes: list[Node], chance: random.Random, found: Rounds) -> None:
    clients, shrinks = Clients(here), _Shrinks()
    places = [tenant for tenant in _TENANTS for _ in range(_CLIENTS)]
    on_nodes = (clients.on_node(node, each, _HOLD) for node in nodes for each in places)
    over_http = (clients.over_http(each, _HOLD_OVER_HTTP) for each in places)
    async with here.most_backends() as seen, running(*on_nodes, *over_http):
        watching = (shrinks.watch(here, node) for node in nodes)
        async with running(*watching, _move(here, nodes, chance)):
            began, before = perf_counter(), clients.count
            await asyncio.sleep(_SECONDS)
            rate = (clients.count - before) / (perf_counter() - began)
    for failure in clients.failures[:5]:
        print(f"# a client failed: {failure}")
    found.add("nodes_budget_backends_vs_budget", seen.most / _BUDGET)
    found.add("nodes_budget_errors", len(clients.failures))
    found.add("nodes_budget_transactions_per_s", rate)
    found.add("nodes_budget_shrinks", len(shrinks.seconds))
    found.add_quantiles("nodes_budget_shrink_observed_s", shrinks.seconds)


async def _move(here: Site, nodes: list[Node], chance: random.Random) -> None:
    """Each second give the nodes other limits, and a tenant another size."""
    while True:
        for node in nodes:
            await here.limit(node.name, chance.randint(_LEAST, _MOST))
        size = {"min_size": 0, "warmup_size": 0, "max_size": chance.randint(1, _MOST_SIZE)}
        await here.ask("PUT", f"/v1/tenants/{chance.choice(_TENANTS)}/pool", size)
        await asyncio.sleep(1)
