"""The service's view of a node: its reports, and its allotments."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from app import __version__
from app.control.nodes.demand import Demand
from app.control.nodes.heard_reports import HeardReport, HeardReports
from app.control.nodes.offered_sizes import OfferedSizes
from app.domain.errors import NodeInUse, NodeReportLate, NodeSessionEnded, NodeSessionUnknown
from app.domain.nodes.agent_version import version_warning
from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.configuration import NodeConfiguration, NodeEntry
from app.domain.nodes.declaration import DeclaredNode
from app.domain.nodes.gate import EntryState
from app.domain.nodes.node import STALE_AFTER, NodeState, node_state
from app.domain.nodes.report import NodeReport
from app.domain.nodes.weaknesses import vulnerabilities

# Seconds within which an agent applies what it was offered, unless something is wrong.
OUTDATED_AFTER = 30.0
# More versions than are offered in that time.
_MOST_OFFERED = 1000
_NOTHING = Commitment()


class TrackedNode:
    """A node as the service sees it.

    Attributes:
        declared: its declaration by operators.
        commitments: the connections that it may have, by server.
        demands: the connections that it could use, by server.
        configuration: its latest configuration, without allotments; None before the first one.
        changed: set when there is another configuration, or the node `is_called`.
        is_leaving: whether it is being deleted, and gets no connections.
        is_called: whether its agent must report at once, because its allotment shrinks and others
            wait for the connections.
        heard: set at the next report.
        entries: the configuration's entries, by name.
        sizes: the sizes that its entries were offered, and those that may be in force.
        largest: the size of its largest entry, by server.
        reports: the reports of its agents.
        last_session: the latest session number that was given out.
        absent_since: when Postgres stopped showing its back-ends; None: it shows some.
        failure: why this process cannot run its agent; empty if it can, or is not to.
    """

    def __init__(self, declared: DeclaredNode, clock: Callable[[], float]) -> None:
        self.declared = declared
        self._clock = clock
        self.commitments: dict[str, Commitment] = {}
        self.demands: dict[str, Demand] = {}
        self.configuration: NodeConfiguration | None = None
        self.changed, self.heard = asyncio.Event(), asyncio.Event()
        self.is_called = self.is_leaving = False
        self.entries: Mapping[str, NodeEntry] = {}
        self.sizes = OfferedSizes()
        self.largest: Mapping[str, int] = {}
        self.reports = HeardReports()
        self.last_session = 0
        self.absent_since: float | None = None
        self.failure = ""
        # Servers where it has an earlier leader's allotment, and this one has not divided yet.
        self._undivided: set[str] = set()
        self._called_at: float | None = None
        self._awaited_since: float | None = None
        # Since when a report is awaited that tells which sizes are in force.
        self._unknown_since = 0.0
        # The first version; and the versions not in force yet, with the times of their offers.
        self._first_version = 0
        self._offered: deque[tuple[int, float]] = deque(maxlen=_MOST_OFFERED)

    def owe(self, liabilities: Mapping[str, int], generation: int) -> None:
        """Add connections, by server, that it may have from an earlier leader of the service.

        It has returned them once it has reported an allotment of this *generation* or later.
        """
        self._awaited_since = self._clock()
        self._undivided.update(liabilities)
        for server, connections in liabilities.items():
            sent = Allotment(generation=generation, connections=connections)
            self.commitments[server] = Commitment(sent=(sent,), observed=connections)

    def redeclare(self, declared: DeclaredNode) -> None:
        """Take over a changed declaration."""
        self.declared = declared

    @property
    def name(self) -> str:
        return self.declared.spec.name

    @property
    def version(self) -> int:
        """The version of its configuration; 0 before the first one."""
        return 0 if self.configuration is None else self.configuration.version

    @property
    def latest(self) -> HeardReport | None:
        """The latest report; None before the first."""
        return self.reports.latest

    @property
    def silence(self) -> float | None:
        """Seconds since its last report; None without one."""
        return None if self.latest is None else self._clock() - self.latest.at

    @property
    def state(self) -> NodeState:
        now, latest = self._clock(), self.latest
        heard_at = self._awaited_since if latest is None else latest.at
        return node_state(
            silence=None if heard_at is None else now - heard_at,
            absence=0.0 if self.absent_since is None else now - self.absent_since,
            configured=latest is not None and latest.report.version > 0,
            draining=self.declared.draining,
        )

    @property
    def problem(self) -> str:
        """What its agent cannot do, or why there is none; empty if nothing is known."""
        if self.failure and not self.is_reachable:
            return self.failure
        return self.latest.report.problem if self.latest is not None else ""

    @property
    def is_reachable(self) -> bool:
        """Whether it reported recently, so that a change of its allotment reaches it."""
        return self._called_at is not None and self._clock() - self._called_at < STALE_AFTER

    def has(self, version: int) -> bool:
        """Whether it has reported *version*, or a later one."""
        return self.latest is not None and self._offered_version(self.latest.report) >= version

    def lacks(self, version: int) -> bool:
        """Whether it is reachable but has not reported *version* or a later one."""
        return self.is_reachable and not self.has(version)

    def _offered_version(self, report: NodeReport) -> int:
        """The version of *report*; 0 if it is higher than any that this service has offered.

        Such a version is from before a restore of the catalog.
        """
        return report.version if report.version <= self.version else 0

    @property
    def is_outdated(self) -> bool:
        """Whether it is reachable but has long not applied what it was offered.

        While sizes move all the time, hardly any report has the latest version.
        """
        return self.is_reachable and self.outdated_seconds >= OUTDATED_AFTER

    @property
    def outdated_seconds(self) -> float:
        """Seconds since it was offered the first version that is not in force; 0 if all are."""
        return self._clock() - self._offered[0][1] if self._offered else 0.0

    @property
    def vulnerabilities(self) -> tuple[str, ...]:
        """The vulnerabilities of its last reported pooler; a sentence for each."""
        return vulnerabilities(self.latest.report.engine) if self.latest is not None else ()

    @property
    def version_warning(self) -> str | None:
        """What to upgrade if its agent and this service are not tested together."""
        if self.latest is None:
            return None
        return version_warning(self.latest.report.agent, __version__)

    @property
    def can_recycle(self) -> bool:
        """Whether its agent is known to replace connections when that is asked."""
        return self.latest is not None and self.latest.report.can_recycle

    @property
    def is_drained(self) -> bool:
        """Whether it is draining and its clients have left."""
        if not self.declared.draining or self.latest is None:
            return self.declared.draining
        return self.latest.is_complete and not self.latest.sums.clients

    @property
    def servers(self) -> frozenset[str]:
        """The names of the servers in its configuration."""
        return frozenset(self.configuration.servers if self.configuration else ())

    @property
    def liability(self) -> int:
        """The most connections that it can have, on all servers."""
        return sum(commitment.liability for commitment in self.commitments.values())

    def check_unused(self) -> None:
        """Refuse its deletion while it may have connections.

        Raises:
            NodeInUse
        """
        if self.liability:
            raise NodeInUse(
                f"Node {self.name} may have connections: {self.liability}. Drain it and wait until "
                "its clients have left, or stop it and wait until it is gone."
            )

    def begin_removal(self) -> None:
        """Stop giving it connections, because it is being deleted.

        Raises what `check_unused` raises.
        """
        self.check_unused()
        self.is_leaving = True

    def end_removal(self) -> None:
        """Its deletion has ended, with or without success."""
        self.is_leaving = False

    def commitment(self, server: str) -> Commitment:
        return self.commitments.get(server, _NOTHING)

    def limit(self, server: str) -> int | None:
        """The most connections of a server that it may get; None: no limit.

        While its entries may have unknown sizes, it gets no more than it has.
        """
        declared = self.declared.spec.limits.get(server)
        if self.is_drained or self.is_leaving:
            return 0
        if self.sizes.are_known:
            return declared
        current = self.commitment(server).current
        return current if declared is None else min(current, declared)

    def send(self, server: str, allotment: Allotment) -> None:
        """Send it another allotment; its agent gets it in the answer to its next report."""
        known = self.commitment(server)
        self.commitments[server] = known.send(allotment)
        if allotment.connections < known.current:
            self.is_called = True
            self._wake()

    def note_division(self, server: str) -> None:
        """Note that its allotment of *server* is one that this leader of the service decided."""
        self._undivided.discard(server)

    def release(self) -> int:
        """Take back everything, because it is gone.

        Return the highest allotment generation, or 0.
        """
        released = {server: each.release() for server, each in self.commitments.items()}
        self.commitments.update(released)
        self._undivided.clear()
        self.forget_sizes()
        return max((each.generation for each in released.values()), default=0)

    def note_failure(self, reason: str) -> None:
        """Note why this process cannot run its agent."""
        self.failure = reason

    def note_absence(self, now: float) -> None:
        """Note that Postgres shows none of its back-ends at *now*."""
        if self.absent_since is None:
            self.absent_since = now

    def note_presence(self) -> None:
        """Note that Postgres shows some of its back-ends, or that this is unknown."""
        self.absent_since = None

    def called(self) -> None:
        """Note that its agent was called to report, and needs no other call."""
        self.is_called = False

    def answered(self, report: NodeReport) -> None:
        """Note that the answer to *report* has its allotments, so that no call is needed for them.

        Its agent reports by itself that an allotment shrank, but not that it grew, and others may
        wait for that, too.
        """
        self.is_called = any(
            self.commitment(server).was_larger_since(reported.generation)
            for server, reported in report.servers.items()
        )
        if self.is_called:
            self._wake()

    def allotments(self) -> dict[str, Allotment]:
        """Its latest allotments, by server.

        What it may have from an earlier leader is not one of them: it can be more than it has, and
        than the budget. Only an agent that knows no allotment gets it.
        """
        return {
            server: Allotment(generation=each.generation, connections=each.current)
            for server, each in self.commitments.items()
            if server not in self._undivided or self._knows_none(server)
        }

    def _knows_none(self, server: str) -> bool:
        """Whether its agent has reported that it has no allotment of *server*."""
        reported = self.latest.report.servers.get(server) if self.latest else None
        return reported is not None and reported.generation == 0

    # -- sizes of entries ------------------------------------------------------------------------

    def forget_sizes(self) -> None:
        """Note that it may use a configuration of an earlier leader, or from before it was gone."""
        self.sizes.forget()
        self._unknown_since = self._clock()

    @property
    def takes_sizes(self) -> bool:
        """Whether new sizes reach it, and it reports in time what is in force.

        This also holds before its first report: it continues from the last leader to this one.
        """
        if self.sizes.are_known:
            return self.is_reachable
        is_awaited = self.latest is None and self._awaited_since is not None
        is_overdue = self._clock() - self._unknown_since >= STALE_AFTER
        return (self.is_reachable or is_awaited) and not is_overdue

    def most_of(self, entry: str, server: str, size: int) -> int:
        """The most connections that an entry can have open here, with *size* over all places."""
        if not self.sizes.are_known:
            return min(size, self.commitment(server).liability)
        offered = self.sizes.most(entry)
        reported = self.latest.entries.get(entry) if self.latest else None
        return max(offered, reported.most_connections if reported else 0)

    # -- reports ---------------------------------------------------------------------------------

    def begin_session(self, session: int) -> None:
        """Start a session for another agent; from now on, reports of earlier ones are refused."""
        self.last_session = session
        self._note_call()

    def hear(self, report: NodeReport, *, most_sessions: int) -> HeardReport:
        """Take in a report; *most_sessions* is above any session number that was given out.

        Raises:
            NodeSessionEnded: another agent has started.
            NodeSessionUnknown: there was no such session.
            NodeReportLate: a later report of this agent came before.
        """
        if report.session >= most_sessions:
            raise NodeSessionUnknown
        if report.session < self.last_session:
            raise NodeSessionEnded
        latest = self.latest
        if latest is not None and not report.is_newer_than(latest.report):
            raise NodeReportLate
        self.last_session = report.session
        called_at = self._note_call()
        version = self._offered_version(report)
        self._note_version(version, is_known=version == report.version)
        for server, reported in report.servers.items():
            observed = max(reported.committed, reported.connected)
            known = self.commitment(server)
            self.commitments[server] = known.acknowledge(reported.generation, observed)
        is_current = self.configuration is not None and report.version == self.version
        heard = self.reports.add(report, called_at, self.entries if is_current else None)
        if heard.is_complete:
            self.sizes.settle(version)
        self.heard.set()
        self.heard = asyncio.Event()
        return heard

    def _note_call(self) -> float:
        """Note that its agent was heard; return the present time, in monotonic seconds."""
        now = self._clock()
        if not self.is_reachable:
            self._unknown_since = now
        self._called_at = now
        return now

    def _note_version(self, version: int, *, is_known: bool) -> None:
        """Note that *version* is in force; it may be one of an earlier node with its name."""
        is_earlier = 0 < version < self._first_version
        if (is_earlier or not is_known) and self.sizes.are_known:
            self.forget_sizes()
        while self._offered and self._offered[0][0] <= version:
            self._offered.popleft()

    def may_log_in(self, entry: str, *, since: float) -> bool:
        """Whether it is reachable and has not reported after *since* that *entry* is closed."""
        latest = self.latest
        if latest is None or not self.is_reachable or entry not in latest.entries:
            return False
        return latest.at <= since or latest.entries[entry].state is EntryState.OPEN

    def offer(self, configuration: NodeConfiguration) -> None:
        """Offer it another configuration."""
        self.sizes.offer(configuration)
        self._first_version = self._first_version or configuration.version
        self._offered.append((configuration.version, self._clock()))
        self.configuration = configuration
        self.entries = {entry.name: entry for entry in configuration.entries}
        largest: dict[str, int] = {}
        for entry in configuration.entries:
            largest[entry.server] = max(entry.size, largest.get(entry.server, 0))
        self.largest = largest
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
