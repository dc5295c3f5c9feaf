"""What every `Engine` must do, as applications and Postgres see it: for each of `ENGINES`."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import psycopg
import pytest

from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.estimated_load import EstimatedLoad
from app.node.engine import Backend, Engine, EntryInForce
from app.node.errors import NodeError
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually
from tests.node.configurations import allotted
from tests.node.engines import ENGINES
from tests.node.site import EngineSite, busy, never_more_than, role_password, waits

PIDS = "SELECT pid FROM pg_stat_activity WHERE usename ~ '^tenant_'"
REFUSED = (psycopg.OperationalError, asyncpg.PostgresError)

Place = EngineSite[Any]


@pytest.fixture(params=ENGINES)
def site(
    request: pytest.FixtureRequest, database: Database, enterable_path: Path, scrub_roles: None
) -> Place:
    """A place for each engine in turn; `make_roles` makes the tenants that it serves."""
    return ENGINES[request.param](database, enterable_path / "node")


async def test_every_entry_is_closed_at_first_and_its_clients_wait_until_it_is_opened(
    site: Place,
) -> None:
    await site.make_roles("acme", "bravo")
    node = site.configuration(site.entry("acme"), site.entry("bravo"))
    engine = site.engine()
    assert not await engine.is_running()
    assert not await engine.start(node)
    try:
        assert await engine.is_running()
        async with busy(site, ["acme", "bravo"], clients=1) as load:
            await eventually(lambda: waits(engine, "acme"))
            assert await site.backends() == 0
            await engine.open("acme")
            await eventually(lambda: load.served)
            # Again, which changes nothing.
            await engine.open("acme")
            await load.goes_on("acme")

            await engine.close("acme")
            await eventually(lambda: site.has_backends(0))
            await eventually(lambda: waits(engine, "acme"))
            served = load.served["acme"]
            await engine.open("acme")
            await eventually(lambda: load.served["acme"] > served)
            assert "bravo" not in load.served
    finally:
        await engine.stop(patience=0.0)


async def test_several_entries_are_opened_and_closed_together(site: Place) -> None:
    names = ("acme", "bravo", "coral")
    await site.make_roles(*names)
    async with site.started(site.configuration(*map(site.entry, names))) as engine:
        # One of them twice, which changes nothing.
        await engine.open("bravo")
        await engine.open(*names)
        async with busy(site, names, clients=1) as load:
            await eventually(lambda: set(load.served) == set(names))
            await engine.close("acme", "bravo")
            await eventually(lambda: site.has_backends(1))
            for name in ("acme", "bravo"):
                await eventually(partial(waits, engine, name))
            before = dict(load.served)
            await eventually(lambda: load.served["coral"] > before["coral"])
            await engine.open(*names)
            await eventually(lambda: all(load.served[name] > before[name] for name in names))


async def test_an_entry_has_no_more_connections_than_its_size(site: Place) -> None:
    await site.make_roles("acme")
    async with (
        site.started(site.configuration(site.entry("acme", size=2))) as engine,
        busy(site, ["acme"], clients=8) as load,
        never_more_than(site, 2),
    ):
        await eventually(lambda: waits(engine, "acme"))
        await engine.open("acme")
        await eventually(lambda: load.served.get("acme", 0) > 100)


async def test_what_is_applied_is_read_back_and_stops_nobody_who_stays(site: Place) -> None:
    await site.make_roles("acme", "bravo", "coral")
    acme, bravo, coral = map(site.entry, ("acme", "bravo", "coral"))
    before = site.configuration(acme, bravo)
    async with site.started(before) as engine:
        await engine.open("acme")
        await engine.open("bravo")
        async with busy(site, ["acme"]) as load, site.client("bravo") as leaving:
            await eventually(lambda: load.served)
            larger = replace(coral, size=5)
            after = site.configuration(acme, larger, version=2)
            assert not await engine.differs(before)
            assert not await engine.differs(replace(before, version=7))
            assert await engine.differs(after)
            assert not engine.is_outdated()
            await engine.apply(after)
            assert not await engine.differs(after)
            assert await engine.read_back() == {
                "acme": EntryInForce(size=2, is_open=True),
                "coral": EntryInForce(size=5, is_open=False),
            }
            await load.goes_on("acme")
            with pytest.raises(psycopg.OperationalError):
                await leaving.execute("SELECT 1")
            with pytest.raises(REFUSED):
                await site.role_of("bravo")
        async with busy(site, ["coral"], clients=1) as load:
            await eventually(lambda: waits(engine, "coral"))
            assert not load.served
        # No entry is larger than its server's allotment, which is no reason to apply anything else.
        assert not await engine.differs(allotted(after, 5))
        assert await engine.differs(allotted(after, 3))
        await engine.apply(allotted(after, 3))
        assert (await engine.read_back())["coral"].size == 3


async def test_a_recycled_entry_gets_other_connections_and_interrupts_nobody(
    site: Place, database: Database
) -> None:
    await site.make_roles("acme", "bravo")
    acme, bravo = map(site.entry, ("acme", "bravo"))
    async with site.started(site.configuration(acme, bravo)) as engine:
        await engine.open("acme", "bravo")

        async def pids(entry: str) -> set[int]:
            return {each.pid for each in (await engine.backends()).get(entry, ())}

        async with (
            busy(site, ["acme", "bravo"]) as load,
            site.client("acme") as long,
            long.transaction(),
        ):
            [(held,)] = await (await long.execute("SELECT pg_backend_pid()")).fetchall()
            await eventually(lambda: len(load.served) == 2)
            kept, replaced = await pids("bravo"), await pids("acme") - {held}
            assert replaced
            node = site.configuration(replace(acme, recycles=1), bravo, version=2)
            assert await engine.differs(node)
            await engine.apply(node)
            await load.goes_on("acme", by=20)
            now = await pids("acme")
            assert held in now
            assert not replaced & now
            # Nothing is done twice, by another agent neither.
            engine.leave()
            another = site.engine()
            await another.start(node)
            await another.apply(node)
            await load.goes_on("acme", by=20)
            assert await pids("acme") == now
            assert await pids("bravo") == kept
            another.leave()

        async def is_gone() -> bool:
            return held not in await pids("acme")

        await eventually(is_gone)


async def test_its_own_users_enter_an_entry_with_its_role_and_nobody_else_does(
    site: Place,
) -> None:
    await site.make_roles("acme", "bravo")
    acme, bravo = site.entry("acme", users=("web", "jobs")), site.entry("bravo")
    async with site.started(site.configuration(acme, bravo)) as engine:
        await engine.open("acme")
        await engine.open("bravo")
        for user, password in (
            ("acme.web", "wrong"),
            ("bravo.web", None),
            ("tenant_acme", role_password("acme")),
            ("acme.nobody", None),
        ):
            with pytest.raises(REFUSED):
                await site.role_of("acme", user=user, password=password)
        with pytest.raises(REFUSED):
            await site.enter_without_password("acme", "acme.web")
        # This delays nobody else, nor the same client.
        assert await site.role_of("acme", user="acme.web") == "tenant_acme"
        assert await site.role_of("acme", user="acme.jobs") == "tenant_acme"
        assert await site.role_of("bravo") == "tenant_bravo"


async def test_nobody_enters_with_a_removed_login_nor_an_entry_that_drains(site: Place) -> None:
    await site.make_roles("acme", "bravo")
    both = site.entry("acme", users=("web", "jobs"))
    async with site.started(site.configuration(both, site.entry("bravo"))) as engine:
        await engine.open("acme")
        await engine.open("bravo")
        # A pooler may remember who was logged in.
        assert await site.role_of("acme", user="acme.web") == "tenant_acme"
        async with site.client("bravo") as inside:
            draining = replace(site.entry("bravo"), draining=True)
            one = site.entry("acme", users=("jobs",))
            await engine.apply(site.configuration(one, draining, version=2))
            for tenant in ("acme", "bravo"):
                with pytest.raises(REFUSED):
                    await site.role_of(tenant)
                with pytest.raises(REFUSED):
                    await site.enter_without_password(tenant, f"{tenant}.web")
            assert await site.role_of("acme", user="acme.jobs") == "tenant_acme"
            await inside.execute("SELECT 1")


async def test_closing_lets_transactions_end_and_cutting_ends_them(site: Place) -> None:
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        await engine.open("acme")
        async with site.client("acme") as one, site.client("acme") as other:
            await one.execute("BEGIN; SELECT 1")
            # It does not wait for that.
            await engine.close("acme")
            waiter = asyncio.create_task(other.execute("SELECT 2"))
            await eventually(lambda: waits(engine, "acme"))
            await one.execute("COMMIT")
            await eventually(lambda: site.has_backends(0))
            assert not waiter.done()
            await engine.open("acme")
            await waiter

            await one.execute("BEGIN; SELECT 1")
            is_closed = await engine.cut("acme", ["acme.web"])
            with pytest.raises(psycopg.OperationalError):
                await one.execute("SELECT 1")
            with pytest.raises(psycopg.OperationalError):
                await other.execute("SELECT 1")
            await eventually(lambda: site.has_backends(0))
            assert (await engine.read_back())["acme"].is_open is not is_closed


async def test_cutting_some_users_cuts_others_only_where_it_closes_the_entry(site: Place) -> None:
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme", users=("web", "jobs"), size=3))
    async with site.started(node) as engine:
        await engine.open("acme")
        async with (
            site.client("acme") as web,
            site.client("acme", user="acme.jobs") as busy_one,
            site.client("acme", user="acme.jobs") as idle_one,
        ):
            await web.execute("BEGIN; SELECT 1")
            await busy_one.execute("BEGIN; SELECT 1")
            is_closed = await engine.cut("acme", ["acme.jobs", "acme.nobody"])
            for jobs in (busy_one, idle_one):
                with pytest.raises(psycopg.OperationalError):
                    await jobs.execute("SELECT 1")
            if is_closed:
                with pytest.raises(psycopg.OperationalError):
                    await web.execute("SELECT 1")
            else:
                await web.execute("COMMIT; SELECT 1")
            assert await engine.clients() == ({} if is_closed else {"acme": {"acme.web"}})


async def test_a_request_to_cancel_is_no_client(site: Place, fault_proxy: FaultProxy) -> None:
    await site.make_roles("acme")
    site.database = replace(site.database, port=fault_proxy.port)
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        await engine.open("acme")
        async with site.client("acme") as client:
            await client.execute("SELECT 1")
            sleeping = asyncio.create_task(client.execute("SELECT pg_sleep(3600)"))
            await eventually(lambda: is_in_use(engine, "acme"))
            # It does not reach Postgres.
            fault_proxy.hold_new()
            cancelling = asyncio.create_task(
                psycopg.AsyncConnection.cancel_safe(client, timeout=180)
            )
            before = fault_proxy.accepted
            await eventually(lambda: fault_proxy.accepted > before)
            assert await engine.clients() == {"acme": {"acme.web"}}
            await fault_proxy.pass_through()
            await cancelling
            with pytest.raises(psycopg.errors.QueryCanceled):
                await sleeping


async def is_in_use(engine: Engine, entry: str) -> bool:
    return (await engine.measure())[entry].in_use > 0


async def test_connections_clients_and_waits_are_seen(site: Place) -> None:
    await site.make_roles("acme", "bravo")
    acme = site.entry("acme", size=1, users=("web", "jobs"))
    async with site.started(site.configuration(acme, site.entry("bravo"))) as engine:
        began = monotonic()
        await engine.open("acme")
        async with site.client("acme") as one, site.client("acme", user="acme.jobs") as other:
            await one.execute("BEGIN; SELECT 1")
            waiter = asyncio.create_task(other.execute("SELECT 2"))
            await eventually(lambda: waits_for_long(engine, "acme"))
            seen = (await engine.measure())["acme"]
            assert (seen.connections, seen.in_use, seen.clients, seen.waiting) == (1, 1, 2, 1)
            async with site.database.connected() as connection:
                pids = {row["pid"] for row in await connection.fetch(PIDS)}
            [held] = (await engine.backends())["acme"]
            assert held.client
            assert {held.pid} == pids
            assert await engine.clients() == {"acme": {"acme.web", "acme.jobs"}}
            await one.execute("COMMIT")
            await waiter
            assert (await engine.backends())["acme"] == {Backend(held.pid, client="")}
        totals = await engine.totals()
        assert totals["acme"].transactions == 2
        # The first client waited, too: for the login.
        most = 2 * (monotonic() - began)
        assert 0.0 < totals["acme"].wait_seconds < most
        assert 0.0 < totals["acme"].transaction_seconds < most
        assert totals.get("bravo", EntryTotals()) == EntryTotals()


async def waits_for_long(engine: Engine, entry: str) -> bool:
    return (await engine.measure())[entry].longest_wait > 0.0


async def test_the_mean_hold_is_known_without_the_wait(site: Place) -> None:
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme", size=1))) as engine:
        await engine.open("acme")

        async def work() -> None:
            async with site.client("acme") as connection:
                for _ in range(30):
                    await connection.execute("SELECT pg_sleep(0.005)")

        await asyncio.gather(*(work() for _ in range(4)))
        totals = (await engine.totals())["acme"]
        measured = EstimatedLoad.during(1.0, totals.since(EntryTotals()))
        assert measured is not None
        assert measured.arrivals == 4 * 30
        # Each takes 5 ms and more; three of four wait for one another.
        assert measured.hold >= 0.005
        assert measured.wait > 1.5 * measured.hold


async def test_what_runs_is_taken_over_as_it_is(site: Place) -> None:
    await site.make_roles("acme", "bravo")
    node = site.configuration(site.entry("acme"), site.entry("bravo"))
    async with site.started(node) as first:
        await first.open("acme")
        async with busy(site, ["acme"]) as load:
            await eventually(lambda: load.served)
            first.leave()
            first.leave()
            another = site.engine()
            assert await another.is_running()
            # Only itself, from all connections that it has closed as well.
            await another.close("acme", "bravo")
            assert not await another.has_another_agent()
            await another.open("acme")
            # With a configuration that it does not have yet.
            assert await another.start(site.configuration(site.entry("acme", size=9), version=2))
            try:
                assert await another.read_back() == {
                    "acme": EntryInForce(size=2, is_open=True),
                    "bravo": EntryInForce(size=2, is_open=False),
                }
                await load.goes_on("acme")
                assert await first.has_another_agent()
                assert await another.has_another_agent()
            finally:
                another.leave()


async def test_it_ends_after_transactions_and_can_be_started_again(site: Place) -> None:
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme"))
    async with site.started(node) as engine:
        await engine.open("acme")
        async with site.client("acme") as connection:
            await connection.execute("BEGIN; SELECT 1")
            stopping = asyncio.create_task(engine.stop(patience=60.0))
            await connection.execute("SELECT pg_sleep(0.2)")
            await connection.execute("COMMIT")
            await stopping
        assert not await engine.is_running()
        await engine.stop(patience=0.0)
        for ask in (engine.read_back, engine.measure, engine.totals, engine.backends):
            with pytest.raises(NodeError):
                await ask()
        with pytest.raises(NodeError):
            await engine.open("acme")
        assert not await engine.start(node)
        assert await engine.read_back() == {"acme": EntryInForce(size=2, is_open=False)}
