"""A thousand tenants on one node: what a RELOAD stalls, and what the agent needs."""

import asyncio
from contextlib import suppress
from time import perf_counter

from benchmarks.figure import Figures, Rounds
from benchmarks.http_load import Target
from benchmarks.nodes.changes import change
from benchmarks.nodes.clients import Clients, running
from benchmarks.nodes.site import CLIENT_ERRORS, Node, Site, can_be_measured, site
from benchmarks.testbed import Testbed

_TENANTS = tuple(f"t{number}" for number in range(1000))
_AT_WORK = _TENANTS[:12]
_WATCHED = 20.0
_SECONDS = 3.0
_HOLD = 0.005
# A node with so many tenants reads its files at most once in so many seconds.
_RELOAD_SECONDS = 11.0
_TOGETHER = 8


async def thousand(_: Testbed, rounds: int) -> Figures:
    """1,000 tenants on a node: stall at a RELOAD, changes, and the agent's memory and processor."""
    if not can_be_measured("nodes_thousand"):
        return {}
    found = Rounds()
    async with site(budget=60) as here:
        await here.add_tenants(_TENANTS)
        node = await here.add_node("edge")
        await _watch(node.agent, "idle", found)
        clients = Clients(here)
        async with running(*(clients.on_node(node, each, _HOLD) for each in _AT_WORK)):
            await _watch(node.agent, "12 at work", found)
        for number in range(rounds):
            await _stall(here, node, number, found)
        for number in range(rounds):
            unused = _TENANTS[100 + 4 * number : 104 + 4 * number]
            await change(here, node, unused, found, len(_TENANTS))
        await _use(here, node)
        async with running(*(clients.on_node(node, each, _HOLD) for each in _AT_WORK)):
            await _watch(node.agent, "12, all used", found)
        found.add("nodes_thousand_errors", len(clients.failures))
    return found.figures()


async def _watch(agent: Target, column: str, found: Rounds) -> None:
    """The agent's share of a core, and its memory."""
    cpu, began = agent.cpu(), perf_counter()
    await asyncio.sleep(_WATCHED)
    found.add(
        "nodes_thousand_agent_core_share",
        (agent.cpu() - cpu) / (perf_counter() - began),
        column,
    )
    found.add("nodes_thousand_agent_mb", agent.megabytes(), column)
    found.add("nodes_thousand_agent_most_mb", agent.megabytes("VmHWM"), column)


async def _stall(here: Site, node: Node, number: int, found: Rounds) -> None:
    """The slowest statement while PgBouncer reads its files, and beside that."""
    await here.until_in_force(node)
    await asyncio.sleep(_RELOAD_SECONDS)
    found.add("nodes_thousand_slowest_ms", await _slowest(here, node), "calm")
    size = {"min_size": 0, "warmup_size": 0, "max_size": 6 + number}
    changed = asyncio.create_task(
        here.ask("PUT", f"/v1/tenants/{_TENANTS[-1]}/pool", size), name="bench: resize"
    )
    found.add("nodes_thousand_slowest_ms", await _slowest(here, node), "reload")
    await changed
    await here.until_in_force(node)


async def _slowest(here: Site, node: Node) -> float:
    """Milliseconds of the slowest statement among a few clients', for some seconds."""
    slowest = 0.0

    async def work(tenant: str) -> None:
        nonlocal slowest
        connection = await here.connect(node, tenant)
        await connection.execute("SELECT 1")
        try:
            while True:
                began = perf_counter()
                await connection.execute("SELECT 1")
                slowest = max(slowest, perf_counter() - began)
                await asyncio.sleep(_HOLD)
        finally:
            connection.terminate()

    async with running(*map(work, _AT_WORK[:4])):
        await asyncio.sleep(_SECONDS)
    return slowest * 1000


async def _use(here: Site, node: Node) -> None:
    """Let every tenant have had a client."""
    left = iter(_TENANTS)

    async def use() -> None:
        for tenant in left:
            with suppress(*CLIENT_ERRORS):  # some credentials were revoked
                connection = await here.connect(node, tenant)
                await connection.execute("SELECT 1")
                connection.terminate()

    async with asyncio.TaskGroup() as group:
        for _ in range(_TOGETHER):
            group.create_task(use())
