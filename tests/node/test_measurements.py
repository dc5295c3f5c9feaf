"""What the agent sees of PgBouncer, compared with what Postgres and the applications know."""

from __future__ import annotations

import asyncio

from app.domain.nodes.estimates import EntryTotals, EstimatedLoad
from app.node.agent import Agent
from app.node.pgbouncer import PgBouncer
from tests.fixtures.waiting import eventually
from tests.node.configurations import SERVER
from tests.node.site import Site, busy

PIDS = "SELECT pid FROM pg_stat_activity WHERE usename ~ '^tenant_'"


async def test_connections_clients_and_waits_are_seen(site: Site) -> None:
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme", size=1))) as engine:
        await engine.open("acme")
        async with site.client("acme") as one, site.client("acme") as other:
            await one.execute("BEGIN; SELECT 1")
            waiter = asyncio.create_task(other.execute("SELECT 2"))
            await eventually(lambda: waits(engine))
            seen = (await engine.measure())["acme"]
            assert (seen.connections, seen.in_use, seen.clients, seen.waiting) == (1, 1, 2, 1)
            assert seen.longest_wait > 0.0
            async with site.database.connected() as connection:
                pids = {row["pid"] for row in await connection.fetch(PIDS)}
            assert await engine.backends() == {"acme": pids}
            await one.execute("COMMIT")
            await waiter
        totals = (await engine.totals())["acme"]
        assert totals.transactions == 2
        assert 0.0 < totals.wait_seconds < totals.transaction_seconds


async def waits(engine: PgBouncer) -> bool:
    seen = (await engine.measure())["acme"]
    return seen.waiting > 0 and seen.longest_wait > 0.0


async def test_the_wait_of_clients_that_are_not_let_in_yet_is_known(site: Site) -> None:
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme"), allotment=0)
    async with site.started(node) as engine:
        agent = Agent(engine, node)
        await agent.start()
        async with busy(site, ["acme"], clients=1):
            await eventually(lambda: has_waiter(agent))
            # PgBouncer counts them, and shows no wait.
            assert (await engine.measure())["acme"].longest_wait == 0.0
            [first] = waits_of(agent)
            await agent.look()
            assert waits_of(agent) == [first]


async def has_waiter(agent: Agent) -> bool:
    await agent.look()
    return bool(waits_of(agent))


def waits_of(agent: Agent) -> list[float]:
    """Since when the first client of each entry has waited."""
    gated = agent._gated(SERVER)
    return [entry.waiting_since for entry in gated if entry.waiting_since is not None]


async def test_the_mean_hold_is_known_without_the_wait(site: Site) -> None:
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme", size=1))) as engine:
        await engine.open("acme")
        async with busy(site, ["acme"], clients=4) as load:
            await eventually(lambda: load.served.get("acme", 0) > 100)
        totals = (await engine.totals())["acme"]
        measured = EstimatedLoad.during(1.0, totals.since(EntryTotals()))
        assert measured is not None
        # Each is 5 ms and more; three of four wait for one another.
        assert measured.hold >= 0.005
        assert measured.wait > 1.5 * measured.hold
