"""Entries that open and close on a running PgBouncer: never too many sessions, no errors."""

import asyncio
import os
import socket
from dataclasses import replace
from functools import partial

import psycopg
import pytest

from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.gate import EntryState
from app.node import agent as module
from app.node import pgbouncer, rendering
from app.node.agent import Agent
from app.node.errors import NotInForce
from app.node.rendering import RenderedFiles
from tests.fixtures.waiting import eventually
from tests.node.configurations import SERVER, allotted
from tests.node.site import Site, busy, never_more_than, reloads, waits

RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active'"
TENANTS = ("acme", "bravo", "coral", "delta", "ember", "fjord")


async def six_tenants(site: Site, allotment: int) -> NodeConfiguration:
    """Six tenants of two connections each."""
    await site.make_roles(*TENANTS)
    return site.configuration(*map(site.entry, TENANTS), allotment=allotment)


async def committed_to(agent: Agent, generation: int) -> int:
    """What a report says of the allotment; the size of everything before it is in force."""
    report = (await agent.report(1, 1)).servers[SERVER]
    return report.committed if report.generation >= generation else 999


async def opens(agent: Agent, entry: str) -> bool:
    """Whether an entry is open after another look."""
    await agent.look()
    return agent._entries[entry].state is EntryState.OPEN


@pytest.mark.parametrize("together", [1, 100])
async def test_an_entry_that_is_added_is_closed_from_its_first_moment(
    site: Site, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(pgbouncer, "_TOGETHER", together)
    await site.make_roles("acme", "bravo", "coral")
    acme = site.entry("acme")
    async with site.started(site.configuration(acme)) as engine:
        await engine.open("acme")
        both = [site.entry(name) for name in ("bravo", "coral")]
        await engine.apply(site.configuration(acme, *both, version=2))
        in_force = await engine.read_back()
        assert {name for name, entry in in_force.items() if entry.is_open} == {"acme"}
        async with busy(site, ["acme", "bravo"], clients=1) as load:
            await eventually(lambda: waits(engine, "bravo"))
            assert set(load.served) <= {"acme"}


async def test_more_tenants_than_connections_are_all_served_and_never_have_more(
    site: Site,
) -> None:
    async with (
        site.run(await six_tenants(site, allotment=4)),
        busy(site, TENANTS, clients=2) as load,
        never_more_than(site, 4),
    ):
        await eventually(lambda: set(load.served) == set(TENANTS))
        before = dict(load.served)
        # Each has another turn.
        await eventually(lambda: all(load.served[name] > before[name] for name in TENANTS))


async def test_what_a_client_leaves_running_counts_until_postgres_has_ended_it(site: Site) -> None:
    await site.make_roles("acme", "bravo")
    acme, bravo = (site.entry(name, size=1) for name in ("acme", "bravo"))
    async with (
        site.run(site.configuration(acme, bravo, allotment=1)) as agent,
        busy(site, ["bravo"], clients=1) as load,
        never_more_than(site, 1),
    ):
        for _ in range(5):
            async with site.client("acme") as connection:
                sleep = connection.execute("SELECT pg_sleep(600)")
                running = asyncio.create_task(sleep, name="acme")
                await eventually(lambda: _runs(site, "acme"))
                await eventually(lambda: agent._entries["acme"].state == "closing")
                served = load.served.get("bravo", 0)
                with socket.socket(fileno=os.dup(connection.fileno())) as link:
                    link.shutdown(socket.SHUT_RDWR)
                with pytest.raises(psycopg.OperationalError):
                    await running
            await eventually(lambda: load.served.get("bravo", 0) > served)  # noqa: B023 - now


async def _runs(site: Site, tenant: str) -> bool:
    """Whether Postgres executes a statement of a tenant."""
    async with site.database.connected() as connection:
        return bool(await connection.fetchval(RUNNING, f"tenant_{tenant}"))


async def test_a_smaller_allotment_is_observed_without_an_error(site: Site) -> None:
    node = await six_tenants(site, allotment=8)
    async with site.run(node) as agent, busy(site, TENANTS[:4]) as load, never_more_than(site, 8):
        await eventually(lambda: len(load.served) == 4)
        agent.configure(allotted(node, 2, 2))
        await eventually(lambda: _at_most(agent, 2, 2))
        async with never_more_than(site, 2):
            before = dict(load.served)
            await eventually(lambda: all(load.served[name] > before[name] for name in before))
        # An answer that was late: the newer one counts.
        agent.configure(allotted(node, 8, 1))
        assert await committed_to(agent, 2) <= 2


async def _at_most(agent: Agent, connections: int, generation: int) -> bool:
    return await committed_to(agent, generation) <= connections


async def test_a_size_counts_while_it_is_applied_although_a_smaller_allotment_comes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.make_roles("acme")
    small, large = site.entry("acme", size=2), site.entry("acme", size=5)
    monkeypatch.setattr(module, "RELOAD_INTERVAL", 0.0)
    monkeypatch.setattr(module, "URGENT_INTERVAL", 0.0)
    async with site.started(site.configuration(small, allotment=5)) as engine:
        agent = Agent(engine, site.configuration(small, allotment=5))
        await agent.start()
        async with busy(site, ["acme"], clients=1):
            await eventually(partial(opens, agent, "acme"))
        apply = engine.apply

        async def overtaken(node: NodeConfiguration) -> None:
            agent.configure(allotted(node, 2, 2))
            await apply(node)
            # PgBouncer has the larger size by now.
            assert await committed_to(agent, 2) >= 5

        monkeypatch.setattr(engine, "apply", overtaken)
        agent.configure(site.configuration(large, allotment=5, version=2))
        await agent.look()
        assert (await engine.read_back())["acme"].size == 5


async def test_an_entry_that_is_about_to_open_counts_while_others_close(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await six_tenants(site, allotment=4)
    async with site.started(node) as engine:
        agent = Agent(engine, node)
        await agent.start()
        asking = asyncio.create_task(site.role_of("acme"), name="acme")
        await eventually(partial(opens, agent, "acme"))
        await asking
        # It is idle by now.
        await agent.look()
        assert not agent._entries["acme"].is_busy
        close, counted = engine.close, list[int]()

        async def watched(*entries: str) -> None:
            await close(*entries)
            counted.append(await committed_to(agent, 1))

        monkeypatch.setattr(engine, "close", watched)
        async with busy(site, ["bravo", "coral"], clients=1):
            for name in ("bravo", "coral"):
                await eventually(partial(waits, engine, name))
            await agent.look()
            # One of them opens in the free half; acme closes for the other.
            assert counted == [4]


async def test_a_smaller_size_is_observed_under_load_without_an_error(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_INTERVAL", 0.0)
    await site.make_roles("acme")
    large = site.configuration(site.entry("acme", size=5))
    small = site.configuration(site.entry("acme", size=2), version=2)
    async with site.run(large) as agent, busy(site, ["acme"], clients=12) as load:
        await eventually(lambda: site.has_backends(5))
        agent.configure(small)
        await eventually(lambda: agent.version == 2)
        await eventually(lambda: _at_most(agent, 2, 1))
        async with never_more_than(site, 2):
            await load.goes_on("acme", by=50)
        # An older configuration changes nothing.
        agent.configure(large)
        assert agent.configuration.version == 2


async def test_pgbouncer_with_many_entries_reloads_at_most_once_in_ten_seconds(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_ENTRIES", 1)
    await site.make_roles("acme")
    now = [1000.0]
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        agent = Agent(engine, site.configuration(site.entry("acme")), clock=lambda: now[0])
        await agent.start()
        before = reloads(site)
        for version in range(2, 12):
            # Two per second; the last one of each window counts.
            agent.configure(site.configuration(site.entry("acme", size=version), version=version))
            await agent.look()
            now[0] += 2.0
        assert reloads(site) - before == 2
        assert agent.version == 7
        now[0] += 10.0
        await agent.look()
        assert agent.version == 11
        assert (await engine.read_back())["acme"].size == 11

        # Nothing that PgBouncer would have to read: in force at once.
        before = reloads(site)
        agent.configure(site.configuration(site.entry("acme", size=11), version=12))
        await agent.look()
        assert agent.version == 12
        assert reloads(site) == before


async def test_files_that_pgbouncer_cannot_read_are_noticed_and_cut_nobody(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.make_roles("acme", "bravo")
    acme = site.entry("acme")

    def broken(*args: object, **knobs: object) -> RenderedFiles:
        files = rendering.render(*args, **knobs)  # type: ignore[arg-type]
        return replace(files, ini=files.ini.replace("bravo =", '"bravo" ='))

    async with site.started(site.configuration(acme)) as engine:
        await engine.open("acme")
        async with busy(site, ["acme"], clients=1) as load:
            await eventually(lambda: load.served)
            wanted = site.configuration(acme, site.entry("bravo"), version=2)
            with monkeypatch.context() as patched:
                patched.setattr(pgbouncer, "render", broken)
                with pytest.raises(NotInForce, match="syntax error"):
                    await engine.apply(wanted)
            await load.goes_on("acme")
            assert await engine.differs(wanted)
            await engine.apply(wanted)
            assert set(await engine.read_back()) == {"acme", "bravo"}


async def test_a_paused_tenant_waits_and_goes_on(site: Site) -> None:
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme"))
    paused = replace(node, version=2, entries=(replace(node.entries[0], paused=True),))
    async with site.run(node) as agent, busy(site, ["acme"]) as load:
        await eventually(lambda: load.served)
        agent.configure(paused)
        await eventually(lambda: _state(agent, "paused"))
        assert await site.backends() == 0
        served = load.served["acme"]
        agent.configure(replace(node, version=3))
        await eventually(lambda: load.served["acme"] > served)


async def _state(agent: Agent, state: str) -> bool:
    return (await agent.report(1, 1)).entries[0].state == state


async def test_an_agent_without_work_opens_nothing_when_the_service_is_long_away(
    site: Site,
) -> None:
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme"))
    now = [1000.0]
    async with site.started(node) as engine:
        agent = Agent(engine, node, clock=lambda: now[0])
        await agent.start()
        now[0] += 3600.0
        async with busy(site, ["acme"], clients=1) as load:
            await eventually(lambda: waits(engine, "acme"))
            for _ in range(5):
                await agent.look()
            assert await site.backends() == 0
            agent.accepted(now[0])
            now[0] += 1.0
            await agent.look()
            await eventually(lambda: load.served)
            # While it has work it goes on, whatever the service does.
            now[0] += 3600.0
            await agent.look()
            await load.goes_on("acme")


async def test_what_an_earlier_pooler_may_have_left_behind_counts_for_a_while(site: Site) -> None:
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme"), allotment=3)
    now = [1000.0]
    engine = site.engine()
    agent = Agent(engine, node, left={SERVER: 2}, clock=lambda: now[0])
    await agent.start()
    try:
        async with busy(site, ["acme"], clients=1) as load:
            await eventually(lambda: waits(engine, "acme"))
            for _ in range(5):
                await agent.look()
                now[0] += 0.1
            assert await site.backends() == 0
            report = (await agent.report(1, 1)).servers[SERVER]
            assert (report.committed, report.connected) == (2, 2)
            now[0] += module.LINGER_SECONDS
            await agent.look()
            await eventually(lambda: load.served)
            # A pooler that runs has left nothing behind.
            another = Agent(site.engine(), node, left={SERVER: 2}, clock=lambda: now[0])
            await another.start()
            await another.look()
            assert (await another.report(1, 1)).servers[SERVER].committed == 2
            another._engine.leave()
    finally:
        await engine.stop(patience=0.0)


async def test_a_tenant_that_disappears_may_end_its_transaction(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_INTERVAL", 0.0)
    monkeypatch.setattr(module, "LEAVE_SECONDS", 600.0)
    await site.make_roles("acme", "bravo")
    both = site.configuration(site.entry("acme", users=("web", "jobs")), site.entry("bravo"))
    async with site.run(both) as agent:
        await eventually(lambda: agent.version == 1)
        async with site.client("bravo") as connection:
            found = await connection.execute("BEGIN; SELECT pg_backend_pid()")
            found.nextset()
            [[pid]] = await found.fetchall()
            # Also when something else cannot wait: a credential is revoked.
            agent.configure(site.configuration(site.entry("acme"), version=2))
            await eventually(lambda: is_refused(site, "acme", "acme.jobs"))
            await eventually(lambda: agent._entries["bravo"].state == "closing")
            report = await agent.report(1, 1)
            assert report.servers[SERVER].committed >= 1
            assert pid in report.backends[SERVER]
            await connection.execute("COMMIT")
            await eventually(lambda: agent.version == 2)
            assert "bravo" not in agent._entries
            assert agent._entries.server_of("bravo") is None
        assert await is_refused(site, "bravo", "bravo.web")


async def is_refused(site: Site, tenant: str, user: str) -> bool:
    try:
        await site.role_of(tenant, user=user)
    except psycopg.OperationalError:
        return True
    return False


async def test_a_tenant_that_is_larger_than_a_smaller_allotment_goes_on_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After the first one, a RELOAD that can wait is not due before this test has failed.
    monkeypatch.setattr(module, "RELOAD_ENTRIES", 1)
    monkeypatch.setattr(module, "RELOAD_INTERVAL", 3600.0)
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme", size=5), allotment=5)
    async with site.run(node) as agent, busy(site, ["acme"], clients=6) as load:
        await eventually(lambda: site.has_backends(5))
        before = reloads(site)
        for generation, connections in (2, 4), (3, 3):
            agent.configure(allotted(node, connections, generation))
            await eventually(lambda: reloads(site) == before + generation - 1)  # noqa: B023 - now
            await eventually(lambda: _at_most(agent, connections, generation))  # noqa: B023 - same
        async with never_more_than(site, 3):
            await load.goes_on("acme", by=50)
        assert reloads(site) == before + 2


async def test_an_entry_that_has_no_share_lets_its_clients_wait_and_needs_no_reload(
    site: Site,
) -> None:
    await site.make_roles("acme")
    one = site.configuration(site.entry("acme", size=1))
    none = site.configuration(site.entry("acme", size=0), version=2)
    async with site.run(one) as agent, busy(site, ["acme"], clients=2) as load:
        await eventually(lambda: load.served)
        before = reloads(site)
        agent.configure(none)

        async def is_closed(seconds: float) -> bool:
            [reported] = (await agent.report(1, 1)).entries
            return reported.most_connections == 0 and reported.longest_wait > seconds

        await eventually(lambda: is_closed(0.0))
        assert agent.version == 2
        served = load.served["acme"]
        async with never_more_than(site, 0):
            await eventually(lambda: is_closed(0.5))
        assert load.served["acme"] == served
        agent.configure(replace(one, version=3))
        await eventually(lambda: load.served["acme"] > served)
        assert reloads(site) == before
