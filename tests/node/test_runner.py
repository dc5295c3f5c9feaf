"""The life of an agent: when it may start, how it goes on, and what ends it."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import psycopg
import pytest
from structlog.testing import capture_logs

from app.domain.nodes import refused_logins
from app.domain.nodes.allotment import Allotment
from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.documents import ANSWER_SECONDS, ReportAnswer
from app.domain.nodes.node import FENCED_AFTER
from app.domain.nodes.report import NodeReport
from app.node import agent as agent_module
from app.node import console
from app.node import runner as module
from app.node.agent import Agent
from app.node.clock import boot_time
from app.node.errors import (
    AgentReplaced,
    CannotStart,
    NodeError,
    NothingListens,
    ReportLate,
    ServiceError,
    SessionUnknown,
)
from app.node.files import NodeDirectory
from app.node.pgbouncer import PgBouncer
from app.node.process import Account
from app.node.rendering import MAX_CLIENTS
from app.node.runner import NodeRunner
from app.node.stored_node import NodeStore
from tests.fixtures.processes import is_alive, paused
from tests.fixtures.waiting import eventually
from tests.node.configurations import SERVER, allotted
from tests.node.scripted_service import ScriptedService
from tests.node.site import Site, busy, never_more_than, pid_of, waits


@pytest.fixture
async def node(site: Site) -> NodeConfiguration:
    """One tenant with an application."""
    await site.make_roles("acme")
    return site.configuration(site.entry("acme"))


@dataclass(slots=True)
class Clock:
    """The machine's clock, which a test advances."""

    moved_on: float = 0.0

    def __call__(self) -> float:
        return boot_time() + self.moved_on


def store_of(site: Site) -> NodeStore:
    account = Account.choose()
    return NodeStore(NodeDirectory(site.directory, uid=account.uid, gid=account.gid))


@asynccontextmanager
async def running(
    site: Site,
    service: ScriptedService,
    *,
    clock: Clock | None = None,
    stops: bool = True,
    max_clients: int = MAX_CLIENTS,
) -> AsyncIterator[PgBouncer]:
    """An agent for a block; its pooler goes on after that unless it *stops*."""
    engine = site.engine(max_clients=max_clients, max_tenant_clients=max_clients)
    runner = NodeRunner(
        engine, service, store_of(site), max_clients=max_clients, clock=clock or boot_time
    )
    task = asyncio.create_task(runner.run(), name="agent")
    try:
        yield engine
        assert not task.done(), task.exception()
    except BaseException:
        stops = True
        raise
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, AgentReplaced):
            await task
        if stops:
            await engine.stop(patience=0.0)
        else:
            engine.leave()


async def test_it_reports_obeys_answers_and_follows_the_configuration(
    site: Site, node: NodeConfiguration
) -> None:
    service = ScriptedService(node)
    async with running(site, service) as engine, AsyncExitStack() as stack:
        await eventually(lambda: listens(engine))
        load = await stack.enter_async_context(busy(site, ["acme"], clients=4))
        await eventually(lambda: load.served)
        # The answer to a report: no connection any more.
        service.latest = allotted(node, 0, 2)
        await eventually(lambda: service.reports[-1].servers[SERVER].generation == 2)
        await eventually(lambda: service.reports[-1].servers[SERVER].committed == 0)
        async with never_more_than(site, 0):
            sent = len(service.reports)
            await eventually(lambda: len(service.reports) > sent)
        # Another configuration: it arrives by itself, before a report is due.
        service.change(replace(allotted(node, 2, 3), version=2))
        await load.goes_on("acme")
        await eventually(lambda: service.reports[-1].version == 2)
        await eventually(lambda: service.reports[-1].users == {"acme.web"})
    assert [report.sequence for report in service.reports] == list(
        range(1, len(service.reports) + 1)
    )
    assert service.reports[-1].engine == site.engine().name


async def test_an_answer_without_an_allotment_leaves_the_present_one_here_and_for_the_next_agent(
    site: Site, node: NodeConfiguration
) -> None:
    service = ScriptedService(allotted(node, 3, 5))
    async with running(site, service):
        await eventually(lambda: service.reports)
        service.divides = False
        service.change(replace(allotted(node, 0, 0), version=2))
        await eventually(lambda: service.reports[-1].version == 2)
        sent = len(service.reports)
        await eventually(lambda: len(service.reports) > sent + 1)
        assert service.reports[-1].servers[SERVER].generation == 5
        stored = store_of(site).load()
    assert stored is not None
    assert stored.configuration.servers[SERVER].allotment == Allotment(generation=5, connections=3)


async def test_the_next_agent_keeps_an_allotment_while_a_new_leader_has_divided_nothing(
    site: Site, node: NodeConfiguration
) -> None:
    service = ScriptedService(allotted(node, 3, 5))
    async with running(site, service, stops=False) as first:
        await eventually(lambda: len(service.reports) > 1)
    service.divides = False
    service.change(replace(allotted(node, 0, 0), version=2))
    service.reports.clear()
    async with running(site, service):
        await eventually(lambda: len(service.reports) > 1)
    await first.stop(patience=0.0)
    assert {each.servers[SERVER].generation for each in service.reports} == {5}


async def test_it_reports_at_once_when_the_service_calls_it(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPORT_INTERVAL", 3600.0)
    service = ScriptedService(node)
    async with running(site, service):
        await eventually(lambda: service.reports)
        for generation in (2, 3):
            service.latest = allotted(node, 9 - generation, generation)
            service.call()
            await eventually(partial(has_reported, service, generation))


def has_reported(service: ScriptedService, generation: int) -> bool:
    return service.reports[-1].servers[SERVER].generation == generation


async def test_nothing_opens_before_the_service_has_heard_of_the_agent(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Agent] = []
    look = Agent.look

    async def counted(agent: Agent) -> None:
        await look(agent)
        looks.append(agent)

    monkeypatch.setattr(Agent, "look", counted)
    service = ScriptedService(node)
    answer = asyncio.Event()

    class Silent(ScriptedService):
        async def report(self, report: NodeReport) -> ReportAnswer:
            await answer.wait()
            return await service.report(report)

    service.session = 1
    async with running(site, Silent(node)) as engine:
        await eventually(lambda: listens(engine))
        async with busy(site, ["acme"], clients=1) as load:
            await eventually(lambda: waits(engine, "acme"))
            async with never_more_than(site, 0):
                looks.clear()
                await eventually(lambda: len(looks) > 5)
            answer.set()
            await eventually(lambda: load.served)


async def test_answers_to_reports_end_a_poll_that_missed_a_change_and_older_versions_are_refused(
    site: Site, node: NodeConfiguration
) -> None:
    class Overtaken(ScriptedService):
        async def report(self, report: NodeReport) -> ReportAnswer:
            answer = await ScriptedService.report(self, report)
            if len(self.reports) == 1:
                raise ReportLate("A later one was heard.")
            return answer

    service = Overtaken(node)
    async with running(site, service):
        await eventually(lambda: len(service.reports) > 1)
        # The running poll does not learn of it.
        service.latest = replace(node, version=2)
        await eventually(lambda: service.reports[-1].version == 2)
        service.latest = node
        heard, asked = len(service.reports), service.asked
        await eventually(lambda: len(service.reports) > heard + 1)
        assert service.reports[-1].version == 2
        # It does not ask again and again.
        assert service.asked < asked + 100


async def test_a_smaller_allotment_is_reported_as_soon_as_it_is_observed(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPORT_INTERVAL", 3600.0)
    service = ScriptedService(node)
    async with running(site, service) as engine:
        await eventually(lambda: listens(engine))
        await eventually(lambda: service.reports)
        async with busy(site, ["acme"]) as load:
            await eventually(lambda: load.served)
            service.change(replace(allotted(node, 1, 2), version=2))
            await eventually(lambda: len(service.reports) > 1)
            found = service.reports[1].servers[SERVER]
            assert (found.generation, max(found.committed, found.connected)) in {(2, 0), (2, 1)}
            # A larger one costs nobody anything.
            service.change(replace(allotted(node, 2, 3), version=3))
            await load.goes_on("acme", by=100)
        assert len(service.reports) == 2


async def listens(engine: PgBouncer) -> bool:
    """Whether applications can connect: each entry was paused, and its users let in."""
    return engine._digests is not None


async def test_an_answer_that_comes_too_late_is_not_heard(
    site: Site, node: NodeConfiguration
) -> None:
    clock = Clock()

    class Late(ScriptedService):
        async def report(self, report: NodeReport) -> ReportAnswer:
            clock.moved_on += ANSWER_SECONDS
            return await ScriptedService.report(self, report)

    service = Late(node)
    async with running(site, service, clock=clock) as engine:
        await eventually(lambda: listens(engine))
        async with busy(site, ["acme"], clients=1) as load:
            await eventually(lambda: waits(engine, "acme"))
            heard = len(service.reports)
            await eventually(lambda: len(service.reports) > heard)
            assert not load.served
    assert store_of(site).load() is None


async def test_the_next_agent_begins_without_the_service_if_it_was_there_of_late(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    service = ScriptedService(node)
    async with running(site, service, clock=clock):
        # An allotment that was only in an answer.
        await eventually(lambda: service.reports)
        service.latest = allotted(node, 1, 2)
        await eventually(lambda: service.reports[-1].servers[SERVER].generation == 2)

    service.is_away = True
    monkeypatch.setattr(module, "_FIRST_ANSWER", 0.1)
    async with running(site, service, clock=clock) as engine:
        await eventually(lambda: listens(engine))
        async with busy(site, ["acme"]) as load, never_more_than(site, 1):
            await eventually(lambda: load.served)

    # Later another may have its connections: it starts nothing before an answer.
    clock.moved_on += FENCED_AFTER
    async with running(site, service, clock=clock) as engine:
        asked = service.asked
        await eventually(lambda: service.asked > asked + 2)
        assert engine.process is None
        service.is_away = False
        await eventually(lambda: listens(engine))
        async with busy(site, ["acme"]) as load:
            await eventually(lambda: load.served)


async def test_what_the_next_agent_needs_is_stored_again_after_it_was_lost(site: Site) -> None:
    service = ScriptedService(site.configuration())
    stored = site.directory / "configuration.json"
    async with running(site, service):
        await eventually(lambda: service.reports)
        stored.unlink()
        service.call()
        await eventually(stored.exists)


async def test_what_an_earlier_agents_pooler_may_have_left_behind_is_reported(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ScriptedService(allotted(node, 2, 2))
    async with running(site, service):
        await eventually(lambda: store_of(site).load())
    monkeypatch.setattr(agent_module, "LINGER_SECONDS", 3600.0)
    heard = len(service.reports)
    async with running(site, service):
        await eventually(lambda: len(service.reports) > heard)
        assert service.reports[heard].servers[SERVER].committed == 2


async def test_what_an_earlier_agents_hung_pooler_may_have_is_reported_although_it_may_have_less(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ScriptedService(allotted(node, 2, 2))
    async with AsyncExitStack() as stack:
        async with running(site, service, stops=False) as first:
            await eventually(lambda: listens(first))
            client = await stack.enter_async_context(site.client("acme"))
            await client.execute("BEGIN")
            service.latest = allotted(node, 0, 3)
            await eventually(lambda: service.reports[-1].servers[SERVER].generation == 3)
            assert service.reports[-1].servers[SERVER].committed == 1
        heard = len(service.reports)
        with monkeypatch.context() as patch, paused(pid_of(first)):
            patch.setattr(console, "DEADLINE_SECONDS", 0.1)
            async with running(site, service, stops=False):
                await eventually(lambda: len(service.reports) > heard)
        assert service.reports[heard].problem
        assert service.reports[heard].servers[SERVER].committed == 1
        await client.execute("COMMIT")
    await first.stop(patience=0.0)


async def test_what_runs_with_clients_is_taken_over_however_long_the_service_is_away(
    site: Site, node: NodeConfiguration
) -> None:
    clock = Clock()
    service = ScriptedService(node)
    async with AsyncExitStack() as stack:
        async with running(site, service, clock=clock, stops=False) as first:
            await eventually(lambda: listens(first))
            load = await stack.enter_async_context(busy(site, ["acme"]))
            await eventually(lambda: load.served)
        service.is_away = True
        clock.moved_on += 3600.0
        async with running(site, service, clock=clock) as engine:
            await eventually(lambda: listens(engine))
            assert pid_of(engine) == pid_of(first)
            await load.goes_on("acme", by=100)
            await stack.aclose()
        await first.stop(patience=0.0)


async def test_an_agent_that_was_replaced_ends_and_leaves_the_pooler_to_the_next_one(
    site: Site, node: NodeConfiguration
) -> None:
    service = ScriptedService(node)
    engine, next_engine = site.engine(), site.engine()
    task = asyncio.create_task(NodeRunner(engine, service, store_of(site)).run())
    try:
        await eventually(lambda: listens(engine))
        async with busy(site, ["acme"], clients=1) as load:
            await eventually(lambda: load.served)
            assert await next_engine.start(node)
            service.session += 1
            with pytest.raises(AgentReplaced):
                await task
            await load.goes_on("acme")
    finally:
        next_engine.leave()
        await engine.stop(patience=0.0)


async def test_a_pooler_whose_node_another_machine_runs_has_no_connections_until_its_next_agent(
    site: Site, node: NodeConfiguration
) -> None:
    service = ScriptedService(node)
    engine = site.engine()
    task = asyncio.create_task(NodeRunner(engine, service, store_of(site)).run())
    try:
        await eventually(lambda: listens(engine))
        async with busy(site, ["acme"]) as load:
            await eventually(lambda: load.served)
            service.session += 1
            with pytest.raises(AgentReplaced):
                await task
            await eventually(lambda: site.has_backends(0))
            engine.leave()
            load.served.clear()
            async with running(site, service, stops=False):
                await eventually(lambda: load.served)
    finally:
        await engine.stop(patience=0.0)


async def test_what_a_server_said_is_known_until_the_next_leader_has_reached_it(
    site: Site, node: NodeConfiguration
) -> None:
    """A pooler that starts just then would ignore settings of its clients."""
    said = {SERVER: replace(node.servers[SERVER], reports_search_path=False)}
    service = ScriptedService(replace(node, servers=said))

    def stored() -> NodeConfiguration:
        found = store_of(site).load()
        assert found is not None
        return found.configuration

    async with running(site, service, stops=False) as first:
        await eventually(lambda: listens(first))
        await eventually(lambda: service.reports)
        for version in (2, 3):
            service.change(replace(node, version=version))
            await eventually(lambda version=version: stored().version == version)  # type: ignore[misc]
            assert stored().servers[SERVER].reports_search_path is False
    service.change(replace(node, version=4))
    async with running(site, service):
        await eventually(lambda: stored().version == 4)
        assert stored().servers[SERVER].reports_search_path is False
    await first.stop(patience=0.0)


async def test_a_pooler_that_hangs_while_its_agent_is_replaced_is_closed_once_it_answers(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ScriptedService(node)
    engine, failures = site.engine(), list[NodeError]()
    has_another_agent = engine.has_another_agent

    async def ask() -> bool:
        try:
            return await has_another_agent()
        except NodeError as error:
            failures.append(error)
            raise

    monkeypatch.setattr(engine, "has_another_agent", ask)
    task = asyncio.create_task(NodeRunner(engine, service, store_of(site)).run())
    try:
        await eventually(lambda: listens(engine))
        async with busy(site, ["acme"]) as load:
            await eventually(lambda: load.served)
            with paused(pid_of(engine)):
                service.session += 1
                await eventually(lambda: failures)
            with pytest.raises(AgentReplaced):
                await task
            await eventually(lambda: site.has_backends(0))
    finally:
        await engine.stop(patience=0.0)


async def test_a_pooler_that_was_killed_is_started_again_within_the_allotment(
    site: Site, node: NodeConfiguration
) -> None:
    service = ScriptedService(allotted(node, 2, 2))
    # The applications end after the watch: cancelling their statements takes connections, too.
    async with running(site, service) as engine, AsyncExitStack() as stack:
        await eventually(lambda: listens(engine))
        async with site.client("acme") as one, site.client("acme") as other:
            statements = [
                asyncio.create_task(each.execute("SELECT pg_sleep(3600)")) for each in (one, other)
            ]
            await eventually(lambda: site.has_backends(2))
            # Postgres does not notice at once, in the middle of a statement.
            async with never_more_than(site, 2):
                killed = pid_of(engine)
                os.kill(killed, signal.SIGKILL)
                for each in statements:
                    with pytest.raises(psycopg.OperationalError):
                        await each
                await eventually(lambda: pid_of(engine) != killed and engine._digests)
                load = await stack.enter_async_context(busy(site, ["acme"]))
                await eventually(lambda: load.served)


async def test_a_pooler_that_hangs_is_reported_and_not_killed(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ScriptedService(node)
    async with running(site, service) as engine:
        await eventually(lambda: service.reports)
        monkeypatch.setattr(console, "DEADLINE_SECONDS", 0.1)
        monkeypatch.setattr(module, "_HANGS_AFTER", 0.3)
        with paused(pid_of(engine)):
            await eventually(lambda: "left alone" in service.reports[-1].problem)
            assert is_alive(pid_of(engine))
        monkeypatch.setattr(console, "DEADLINE_SECONDS", 60.0)
        hung = pid_of(engine)
        await eventually(lambda: not service.reports[-1].problem)
        assert pid_of(engine) == hung


@pytest.mark.parametrize("refusal", [ReportLate, SessionUnknown])
async def test_an_agent_whose_reports_are_refused_says_so_and_begins_another_session(
    site: Site, node: NodeConfiguration, refusal: type[ServiceError]
) -> None:
    """As after a restore of the catalog: an earlier agent may have had the same session."""

    class Restored(ScriptedService):
        async def report(self, report: NodeReport) -> ReportAnswer:
            if report.session == 1:
                raise refusal("Not this one.")
            return await ScriptedService.report(self, report)

    service = Restored(node)
    with capture_logs() as logs:
        async with running(site, service):
            await eventually(lambda: service.reports)
    assert service.reports[0].session == 2
    reasons = [each.get("reason") for each in logs if each["log_level"] == "warning"]
    assert "Not this one." in reasons


async def test_a_node_that_is_full_of_clients_says_whose_most_are(
    site: Site, node: NodeConfiguration
) -> None:
    service = ScriptedService(node)
    async with running(site, service, max_clients=8), AsyncExitStack() as clients:
        await eventually(lambda: service.reports and service.reports[-1].version)
        assert service.reports[-1].problem == ""
        for _ in range(6):
            await clients.enter_async_context(site.client("acme"))
        await eventually(lambda: service.reports[-1].problem)
        assert service.reports[-1].problem == (
            "It has 6 clients and may have 8 (--max-clients), then it refuses more. "
            "Tenant acme has 6 of them."
        )


async def test_a_pooler_that_ends_at_once_is_not_said_to_run(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends_at_once(*_: object) -> bool:
        raise NothingListens("No PgBouncer listens.")

    monkeypatch.setattr(PgBouncer, "start", ends_at_once)
    monkeypatch.setattr(module, "_HANGS_AFTER", 0.0)
    service = ScriptedService(node)
    async with running(site, service):
        await eventually(lambda: len(service.reports) > 2)
    assert {report.problem for report in service.reports} == {"No PgBouncer listens."}


async def test_a_pooler_that_cannot_start_at_all_ends_it(
    site: Site, node: NodeConfiguration
) -> None:
    runner = NodeRunner(site.engine(), ScriptedService(node), store_of(site))
    with (
        socket.create_server(("127.0.0.1", site.port)),
        pytest.raises(CannotStart, match="cannot listen"),
    ):
        await runner.run()


async def test_a_configuration_that_cannot_be_in_force_is_reported_and_nothing_stops(
    site: Site, node: NodeConfiguration
) -> None:
    service = ScriptedService(node)
    async with running(site, service) as engine, AsyncExitStack() as stack:
        await eventually(lambda: listens(engine))
        load = await stack.enter_async_context(busy(site, ["acme"], clients=1))
        await eventually(lambda: load.served)
        bad = replace(node.entries[0], database="two\nlines")
        service.change(replace(node, version=2, entries=(bad,)))
        await eventually(lambda: "cannot have the value" in service.reports[-1].problem)
        assert service.reports[-1].version == 1
        await load.goes_on("acme")
        service.change(replace(node, version=3))
        await eventually(lambda: service.reports[-1].version == 3)
        assert not service.reports[-1].problem


async def test_a_first_configuration_that_cannot_be_in_force_is_reported_until_it_is_corrected(
    site: Site, node: NodeConfiguration
) -> None:
    bad = replace(node.entries[0], database="two\nlines")
    service = ScriptedService(replace(node, entries=(bad,)))
    async with running(site, service):
        await eventually(lambda: service.reports)
        assert "cannot have the value" in service.reports[-1].problem
        assert service.reports[-1].version == 0
        service.change(replace(node, version=2))
        await eventually(lambda: service.reports[-1].version == 2)
        assert not service.reports[-1].problem
        assert await site.role_of("acme") == "tenant_acme"


async def test_a_login_that_postgres_refuses_to_the_pooler_is_reported_until_it_works_again(
    site: Site, node: NodeConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_logins, "_TRIED_AGAIN", 0.5)
    await site.make_roles("beta")
    service = ScriptedService(replace(node, entries=(*node.entries, site.entry("beta"))))
    async with running(site, service) as engine, site.database.connected() as admin:
        await eventually(lambda: listens(engine))
        assert await site.role_of("acme") == "tenant_acme"
        await admin.execute("ALTER ROLE tenant_beta NOLOGIN")
        with pytest.raises(psycopg.OperationalError):
            await site.role_of("beta")
        await eventually(lambda: service.reports[-1].problem)
        reason = 'role "tenant_beta" is not permitted to log in'
        assert service.reports[-1].problem == (
            f"Postgres refuses the login of tenant beta: {reason}."
        )
        await admin.execute("ALTER ROLE tenant_beta LOGIN")

        async def is_well() -> bool:
            # PgBouncer refuses one more client, and tries again then.
            with suppress(psycopg.OperationalError):
                await site.role_of("beta")
            return not service.reports[-1].problem

        await eventually(is_well)
