"""The life of an agent: it looks, reports and fetches its configuration until it is cancelled.

It has three tasks, which end together. If a task fails it tries again, for ever: the pooler serves
its clients in the meantime. Only another agent for the same node ends them. Reports are sent once a
second, and at once when an allotment shrinks and when it has shrunk: others wait for that.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from app.domain.nodes.client_limit import crowding
from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.documents import ANSWER_SECONDS, NodeSession
from app.domain.nodes.node import FENCED_AFTER
from app.domain.nodes.refused_logins import RefusedLogins
from app.domain.nodes.report_changes import ReportChanges
from app.domain.nodes.weaknesses import weaknesses
from app.node.agent import Agent
from app.node.clock import boot_time
from app.node.control_plane import ControlPlane
from app.node.engine import Engine
from app.node.errors import (
    AgentReplaced,
    CannotRender,
    ConsoleLost,
    NodeError,
    NothingListens,
    ReportLate,
    ServiceError,
    SessionUnknown,
)
from app.node.rendering import MAX_CLIENTS
from app.node.stored_node import NodeStore, StoredNode
from app.node.threads import in_thread

# In seconds.
LOOK_INTERVAL = 0.1
REPORT_INTERVAL = 1.0
# Looks may take a twenty-fifth of a processor core.
_LOOK_SHARE = 25
# While others wait for the next look, it comes sooner, and looks may take a tenth of a core.
_PRESSED_INTERVAL = 0.05
_PRESSED_SHARE = 10
# An agent that finds another agent's files waits this long for the service before it uses them.
_FIRST_ANSWER = 2.0
# Between two tries.
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
# A pooler that does not answer for this long hangs.
_HANGS_AFTER = 30.0
# A replaced agent tries for this long to close its pooler.
_GIVE_WAY_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class NodeRunner:
    """Runs one agent; call `run()` once."""

    def __init__(
        self,
        engine: Engine,
        service: ControlPlane,
        store: NodeStore,
        *,
        max_clients: int = MAX_CLIENTS,
        is_patient: bool = False,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        """Run *engine*, which takes *max_clients*, as *service* says.

        If *is_patient*, an agent whose pooler cannot start here reports why, and tries again.
        """
        self._engine = engine
        self._max_clients = max_clients
        self._is_patient = is_patient
        self._service = service
        self._store = store
        self._clock = clock
        # Set when something must be done before the next look, or reported before the next report.
        self._news, self._report_due = asyncio.Event(), asyncio.Event()
        self._polling: asyncio.Timeout | None = None
        # A problem with the pooler that an operator should know.
        self._problem = ""
        self._refused = RefusedLogins()
        # Problems with the service, by the request that fails.
        self._complaints: dict[str, str] = {}

    async def run(self) -> None:
        """Run the node until cancelled; after that, the pooler continues.

        Raises:
            AgentReplaced: another agent has started for this node.
            NodeError: the pooler could not be started.
        """
        agent = await self._begin()
        failure: NodeError | None = None
        try:
            await agent.start()
        except NodeError as error:
            # What the service sent can be corrected there, if it says so.
            if not (self._is_patient or isinstance(error, (CannotRender, ConsoleLost))):
                raise
            failure = error
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_looking(agent, failure), name="node: look")
                group.create_task(self._keep_reporting(agent), name="node: report")
                group.create_task(self._keep_polling(agent), name="node: poll")
        except BaseExceptionGroup as failures:
            if failures.subgroup(AgentReplaced):
                # Until Python 3.11.3 the group leaves this task marked as cancelled: in it, a
                # deadline would cancel instead of raising TimeoutError.
                await asyncio.create_task(self._give_way(agent), name="node: give way")
            raise failures.exceptions[0] from failures

    async def _give_way(self, agent: Agent) -> None:
        """Leave the pooler to its next agent; if that has another pooler, serve nobody here.

        The connections are the other one's now, and nobody would revoke credentials here.
        """
        began, pauses, reason = self._clock(), _Pauses(), "The pooler does not answer."
        while (left := _GIVE_WAY_SECONDS - (self._clock() - began)) > 0:
            try:
                async with asyncio.timeout(left):
                    if await self._engine.has_another_agent():
                        return
                    await agent.close()
            except NothingListens:  # it has no connections either
                return
            except (NodeError, TimeoutError) as error:
                reason = str(error) or reason
                await pauses.wait()
            else:
                _log.warning("this node runs on another machine now, applications wait here")
                return
        _log.error("pooler left as it is, end it: others have its connections", reason=reason)

    async def _begin(self) -> Agent:
        """Create an agent with the service's configuration, or with the previous agent's."""
        # Thousands of entries take long, and the event loop may be the service's.
        stored = await in_thread(self._store.load)
        accepted_at = float("-inf") if stored is None else stored.accepted_at
        pauses = _Pauses()
        while True:
            try:
                async with asyncio.timeout(_FIRST_ANSWER if stored else None):
                    configuration = await self._service.configuration(None)
                assert configuration is not None  # noqa: S101 - none is known
                if stored is not None:
                    configuration = configuration.informed_by(stored.configuration)
                if stored is not None and self._is_fresh(stored):
                    # A new leader of the service has divided nothing yet.
                    allotted = stored.configuration.servers.items()
                    configuration = configuration.with_allotments(
                        {name: server.allotment for name, server in allotted}
                    )
                await in_thread(self._store.store, configuration)
                break
            except (ServiceError, TimeoutError) as error:
                self._complain("configuration", error)
                # Then the service cannot have given this node's connections to others by now.
                if stored is not None and (
                    self._is_fresh(stored) or await self._engine.is_running()
                ):
                    configuration = stored.configuration
                    break
            await pauses.wait()
        return Agent(
            self._engine,
            configuration,
            accepted_at=accepted_at,
            left=stored.left if stored else {},
            clock=self._clock,
        )

    def _is_fresh(self, stored: StoredNode) -> bool:
        return self._clock() - stored.accepted_at < FENCED_AFTER

    # -- the pooler ----------------------------------------------------------------------------

    async def _keep_looking(self, agent: Agent, failure: NodeError | None) -> None:
        """Look until cancelled; *failure*: why the pooler could not be started."""
        if failure is not None:
            await self._recover(agent, failure)
        _log.info("node runs", pooler=self._engine.name)
        if known := weaknesses(self._engine.name):
            _log.warning("use a later PgBouncer", reasons=list(known))
        while True:
            self._news.clear()
            began = time.thread_time()
            try:
                await agent.look()
            except NodeError as error:
                await self._recover(agent, error)
            if agent.is_report_due:
                self._report_due.set()
            interval, share = LOOK_INTERVAL, _LOOK_SHARE
            if agent.is_pressed:
                interval, share = _PRESSED_INTERVAL, _PRESSED_SHARE
            pause = max(interval, (time.thread_time() - began) * share)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def _recover(self, agent: Agent, error: NodeError) -> None:
        """Start the pooler again, or wait until it answers again."""
        began, pauses, logged = self._clock(), _Pauses(), ""
        while True:
            self._problem = reason = str(error)
            # Whatever listens there runs.
            may_hang = isinstance(error, ConsoleLost) and not isinstance(error, NothingListens)
            if may_hang and self._clock() - began > _HANGS_AFTER:
                reason = "The pooler hangs."
                self._problem = (
                    f"The pooler runs, and has not answered for {self._clock() - began:.0f} s. It"
                    " is left alone, because its clients may still work. End it if they do not."
                )
            if reason != logged:
                _log.warning("pooler lost", reason=self._problem)
                logged = reason
            await pauses.wait()
            try:
                await agent.start()
            except NodeError as another:
                error = another
            else:
                _log.info("pooler runs again", seconds=round(self._clock() - began, 1))
                self._problem = ""
                return

    # -- the service ---------------------------------------------------------------------------

    async def _keep_reporting(self, agent: Agent) -> None:
        session: NodeSession | None = None
        sequence = 0
        pauses, changes = _Pauses(), ReportChanges()
        while True:
            began, interval = self._clock(), REPORT_INTERVAL
            try:
                if session is None:
                    session = await self._service.open_session()
                    _log.info("node connected", node=session.node, session=session.session)
                sequence += 1
                if await self._report(agent, session, sequence, changes):
                    interval = _SHORTEST_PAUSE
                pauses = _Pauses()
            except AgentReplaced:
                raise
            except (ReportLate, SessionUnknown) as error:
                self._complain("reports", error)
                session = None
            except ServiceError as error:
                self._complain("reports", error)
                await pauses.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, interval - (self._clock() - began))):
                    await self._report_due.wait()

    async def _report(
        self, agent: Agent, session: NodeSession, sequence: int, changes: ReportChanges
    ) -> bool:
        """Report changes; return whether there is more to report at once."""
        self._report_due.clear()
        whole = await agent.report(session.session, sequence, problem=self._problem)
        now, refused = self._clock(), self._refused
        refused.note(self._engine.log.refused_logins(), agent.configuration.entries, now)
        problem = (
            whole.problem
            or refused.problem(whole.entries, now)
            or crowding(whole.entries, self._max_clients)
        )
        report = changes.shorten(replace(whole, problem=problem))
        sent_at = self._clock()
        answer = await self._service.report(report)
        if self._clock() - sent_at >= ANSWER_SECONDS:
            return False  # the service may have released this node in between
        changes.accepted(report, wants_all=answer.wants_all)
        committed = {name: server.committed for name, server in report.servers.items()}
        allotted = agent.configuration.with_allotments(answer.allotments).servers
        self._store.accept(
            sent_at, {name: server.allotment for name, server in allotted.items()}, committed
        )
        if agent.allot(answer.allotments):
            self._news.set()
        agent.accepted(sent_at)
        self._settle("reports")
        if self._polling is not None and answer.version != agent.configuration.version:
            # The version that the poll waits for is there, or will not come: ask again.
            self._polling.reschedule(asyncio.get_running_loop().time())
            self._polling = None
        return report.more or answer.wants_all

    async def _keep_polling(self, agent: Agent) -> None:
        pauses = _Pauses()
        while True:
            known = agent.configuration.version
            if not self._store.has_configuration:
                await in_thread(self._store.store, agent.configuration)
            try:
                configuration = await self._poll(known)
            except TimeoutError:
                continue
            except ServiceError as error:
                self._complain("configuration", error)
                await pauses.wait()
                continue
            if configuration is not None and configuration.version < known:
                self._complain("configuration", _is_older(configuration.version, known))
                await pauses.wait()
                continue
            self._settle("configuration")
            pauses = _Pauses()
            if configuration is None:
                # Others may wait for what the answer to a report takes away.
                self._report_due.set()
                await asyncio.sleep(_SHORTEST_PAUSE)  # a stopping service answers at once
                continue
            configuration = configuration.informed_by(agent.configuration)
            # Writing thousands of entries takes long; a thread leaves the event loop free.
            await in_thread(self._store.store, configuration)
            if agent.configure(configuration):
                self._news.set()

    async def _poll(self, known: int) -> NodeConfiguration | None:
        """Fetch the next configuration; None if there is none.

        Raises:
            TimeoutError: the answer to a report says that there is a new one.
            ServiceError
        """
        try:
            async with asyncio.timeout(None) as self._polling:
                return await self._service.configuration(known)
        finally:
            self._polling = None

    def _complain(self, topic: str, error: Exception) -> None:
        """Log a problem with the service, once."""
        complaint = str(error) or "The service does not answer."
        if complaint != self._complaints.get(topic):
            _log.warning("service does not answer as it should", topic=topic, reason=complaint)
        self._complaints[topic] = complaint

    def _settle(self, topic: str) -> None:
        if self._complaints.pop(topic, None) is not None:
            _log.info("service answers again", topic=topic)


def _is_older(found: int, known: int) -> ServiceError:
    return ServiceError(
        f"The service has version {found} of the configuration, and this agent the later one"
        f" {known}. If the catalog was restored from a backup, start the agent again."
    )


class _Pauses:
    """Pauses that get longer and longer."""

    def __init__(self) -> None:
        self._next = _SHORTEST_PAUSE

    async def wait(self) -> None:
        pause, self._next = self._next, min(2 * self._next, _LONGEST_PAUSE)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
