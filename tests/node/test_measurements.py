"""The agent's view of PgBouncer, compared with Postgres' and the applications'."""

import psycopg
import pytest

from app.domain.nodes.allotment import Allotment
from app.node.agent import Agent
from tests.fixtures.waiting import eventually
from tests.node.configurations import SERVER
from tests.node.site import Site, busy


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


async def test_it_is_known_whether_clients_wait_for_the_next_look(site: Site) -> None:
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme"), allotment=0)
    async with site.started(node) as engine:
        agent = Agent(engine, node)
        await agent.start()
        await agent.look()
        assert not agent.is_pressed
        async with busy(site, ["acme"], clients=1) as load:
            await eventually(lambda: has_waiter(agent))
            assert agent.is_pressed
            agent.allot({SERVER: Allotment(generation=2, connections=2)})
            await agent.look()
            await eventually(lambda: load.served)
            await agent.look()
            assert not agent.is_pressed
            # Others wait until it has reported that it has closed.
            agent.allot({SERVER: Allotment(generation=3, connections=0)})
            assert agent.is_pressed


async def test_a_client_that_waits_in_vain_is_not_counted_as_begun(site: Site) -> None:
    await site.make_roles("acme")
    engine = site.engine(max_wait=1, max_idle_transaction=180)
    await engine.start(site.configuration(site.entry("acme", size=1)))
    try:
        await engine.open("acme")
        async with site.client("acme") as holder, site.client("acme") as waiter:
            await holder.execute("BEGIN")
            with pytest.raises(psycopg.Error, match="query_wait_timeout"):
                await waiter.execute("SELECT 1")
            await holder.execute("COMMIT")
        totals = (await engine.totals())["acme"]
        assert totals.transactions == 2
        assert totals.begun == (1 if engine.version >= (1, 23) else None)
    finally:
        await engine.stop(patience=0.0)


async def has_waiter(agent: Agent) -> bool:
    await agent.look()
    return bool(waits_of(agent))


def waits_of(agent: Agent) -> list[float]:
    """Since when the first client of each entry has waited."""
    gated = agent._gated(SERVER)
    return [entry.waiting_since for entry in gated if entry.waiting_since is not None]
