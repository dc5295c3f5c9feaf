"""What the service knows of one node at the moment: its reports, and what it may have."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from app.control.nodes.demand import Demand
from app.control.nodes.heard_reports import HeardReport, HeardReports
from app.control.nodes.offered_sizes import OfferedSizes
from app.domain.errors import NodeInUse, NodeReportLate, NodeSessionEnded
from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.configuration import NodeConfiguration, NodeEntry
from app.domain.nodes.declaration import DeclaredNode
from app.domain.nodes.gate import EntryState
from app.domain.nodes.node import STALE_AFTER, NodeContact, NodeState
from app.domain.nodes.report import NodeReport
from app.domain.nodes.weaknesses import vulnerabilities

# Seconds in which an agent has in force what it was offered, unless something keeps it from that.
OUTDATED_AFTER = 30.0
# More than are offered in that time.
_MOST_OFFERED = 1000
_NOTHING = Commitment()


class TrackedNode:
    """One node.

    Attributes:
        declared: what operators want of it.
        commitments: what it may have, by server.
        demands: what it could use, by server.
        configuration: the latest one for it, without allotments; None before the first was made.
        changed: set when there is another one, or the node `is_called`.
        is_leaving: whether it is being deleted, and is given nothing.
        is_called: whether its agent is to report at once, because its allotment shrinks: others
            wait for what it gives up.
        heard: set at the next report.
        entries: those of the configuration, by name.
        sizes: of the entries, those that it was offered and those that it may obey.
        largest: the size of the largest of them, by server.
        reports: what its agents have said.
        last_session: the latest that was given out.
        absent_since: since when Postgres shows none of its back-ends; None: it shows some.
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
        self._called_at: float | None = None
        self._awaited_since: float | None = None
        # Since when a report is awaited that says which sizes it obeys.
        self._unknown_since = 0.0
        # The first version; and those that are not in force yet, and when each was offered.
        self._first_version = 0
        self._offered: deque[tuple[int, float]] = deque(maxlen=_MOST_OFFERED)

    def owe(self, liabilities: Mapping[str, int], generation: int) -> None:
        """It may have so many connections, by server, from an earlier leader of the service.

        It has given them back once it has reported an allotment of this *generation* or later.
        """
        self._awaited_since = self._clock()
        for server, connections in liabilities.items():
            sent = Allotment(generation=generation, connections=connections)
            self.commitments[server] = Commitment(sent=(sent,), observed=connections)

    def redeclare(self, declared: DeclaredNode) -> None:
        """Operators want something else of it."""
        self.declared = declared

    @property
    def name(self) -> str:
        return self.declared.spec.name

    @property
    def version(self) -> int:
        """Of its configuration; 0 before the first was made."""
        return 0 if self.configuration is None else self.configuration.version

    @property
    def latest(self) -> HeardReport | None:
        """The latest report; None before the first."""
        return self.reports.latest

    @property
    def silence(self) -> float | None:
        """Seconds since its last report; None: there was none."""
        return None if self.latest is None else self._clock() - self.latest.at

    @property
    def state(self) -> NodeState:
        now, latest = self._clock(), self.latest
        heard_at = self._awaited_since if latest is None else latest.at
        return NodeContact(
            silence=None if heard_at is None else now - heard_at,
            absence=0.0 if self.absent_since is None else now - self.absent_since,
            configured=latest is not None and latest.report.version > 0,
            draining=self.declared.draining,
        ).state

    @property
    def is_reachable(self) -> bool:
        """Whether it was heard of late, so that a change of its allotment reaches it."""
        return self._called_at is not None and self._clock() - self._called_at < STALE_AFTER

    def lacks(self, version: int) -> bool:
        """Whether it can be reached, and has not reported that *version* or a later one."""
        reported = 0 if self.latest is None else self.latest.report.version
        return self.is_reachable and reported < version

    @property
    def is_outdated(self) -> bool:
        """Whether it can be reached, and has long not had in force what it was offered.

        Where sizes move all the time, hardly any report has the latest version.
        """
        longest = self._clock() - self._offered[0][1] if self._offered else 0.0
        return self.is_reachable and longest >= OUTDATED_AFTER

    @property
    def vulnerabilities(self) -> tuple[str, ...]:
        """Those of the pooler that it reported last; a sentence for each."""
        return vulnerabilities(self.latest.report.engine) if self.latest is not None else ()

    @property
    def is_drained(self) -> bool:
        """Whether it drains, and its clients have left."""
        if not self.declared.draining or self.latest is None:
            return self.declared.draining
        return self.latest.is_complete and not self.latest.sums.clients

    @property
    def servers(self) -> frozenset[str]:
        """Names of the servers of its configuration."""
        return frozenset(self.configuration.servers if self.configuration else ())

    @property
    def liability(self) -> int:
        """The most connections that it can have, on all servers."""
        return sum(commitment.liability for commitment in self.commitments.values())

    def check_unused(self) -> None:
        """Refuse to forget it while it may have connections.

        Raises:
            NodeInUse
        """
        if self.liability:
            raise NodeInUse(
                f"Node {self.name} may have connections: {self.liability}. Drain it and wait until "
                "its clients have left, or stop it and wait until it is gone."
            )

    def begin_removal(self) -> None:
        """Be given nothing from now on, to be forgotten; raises what `check_unused` does."""
        self.check_unused()
        self.is_leaving = True

    def end_removal(self) -> None:
        """It is forgotten, or stays."""
        self.is_leaving = False

    def commitment(self, server: str) -> Commitment:
        return self.commitments.get(server, _NOTHING)

    def limit(self, server: str) -> int | None:
        """The most that it may be given of a server; None: no limit.

        While it may have entries of sizes that nobody knows, no more than it has.
        """
        declared = self.declared.spec.limits.get(server)
        if self.is_drained or self.is_leaving:
            return 0
        if self.sizes.are_known:
            return declared
        current = self.commitment(server).current
        return current if declared is None else min(current, declared)

    def send(self, server: str, allotment: Allotment) -> None:
        """Give it another allotment; its agent learns of it with the answer to its next report."""
        known = self.commitment(server)
        self.commitments[server] = known.send(allotment)
        if allotment.connections < known.current:
            self.is_called = True
            self._wake()

    def release(self) -> int:
        """It is gone, and has nothing; the highest number of an allotment that says so, or 0."""
        released = {server: each.release() for server, each in self.commitments.items()}
        self.commitments.update(released)
        self.forget_sizes()
        return max((each.generation for each in released.values()), default=0)

    def note_absence(self, now: float) -> None:
        """Postgres shows none of its back-ends at *now*."""
        if self.absent_since is None:
            self.absent_since = now

    def note_presence(self) -> None:
        """Postgres shows some of its back-ends, or nothing is known of them."""
        self.absent_since = None

    def called(self) -> None:
        """Its agent was called to report, and needs no other call."""
        self.is_called = False

    def answered(self, report: NodeReport) -> None:
        """Its agent learns its allotments with the answer to *report*, and needs no call for that.

        It reports by itself what shrinks, but not what grows, and others may wait for that, too.
        """
        self.is_called = any(
            self.commitment(server).was_larger_since(reported.generation)
            for server, reported in report.servers.items()
        )
        if self.is_called:
            self._wake()

    def allotments(self) -> dict[str, Allotment]:
        """What it was sent last, by server."""
        return {
            server: Allotment(generation=each.generation, connections=each.current)
            for server, each in self.commitments.items()
        }

    # -- sizes of entries ------------------------------------------------------------------------

    def forget_sizes(self) -> None:
        """It may go on by a configuration of an earlier leader, or of before it was gone."""
        self.sizes.forget()
        self._unknown_since = self._clock()

    @property
    def takes_sizes(self) -> bool:
        """Whether other sizes reach it, and it says in time what it has in force.

        Also before it was heard: it goes on from the last leader to this one.
        """
        if self.sizes.are_known:
            return self.is_reachable
        is_awaited = self.latest is None and self._awaited_since is not None
        is_overdue = self._clock() - self._unknown_since >= STALE_AFTER
        return (self.is_reachable or is_awaited) and not is_overdue

    def most_of(self, entry: str, server: str, size: int) -> int:
        """The most connections that it can have open for an entry, of *size* at all places."""
        if not self.sizes.are_known:
            return min(size, self.commitment(server).liability)
        offered = self.sizes.most(entry)
        reported = self.latest.entries.get(entry) if self.latest else None
        return max(offered, reported.most_connections if reported else 0)

    # -- reports ---------------------------------------------------------------------------------

    def begin_session(self, session: int) -> None:
        """Another agent has begun; reports of earlier ones are refused from now on."""
        self.last_session = session
        self._note_call()

    def hear(self, report: NodeReport, *, most_sessions: int) -> HeardReport:
        """Take in a report; *most_sessions* is above any session that was given out.

        Raises:
            NodeSessionEnded: another agent has begun.
            NodeReportLate: a later one of this agent was heard before.
        """
        if not self.last_session <= report.session < most_sessions:
            raise NodeSessionEnded
        latest = self.latest
        if latest is not None and not report.is_newer_than(latest.report):
            raise NodeReportLate
        self.last_session = report.session
        called_at = self._note_call()
        self._note_version(report.version)
        for server, reported in report.servers.items():
            observed = max(reported.committed, reported.connected)
            known = self.commitment(server)
            self.commitments[server] = known.acknowledge(reported.generation, observed)
        is_current = self.configuration is not None and report.version == self.version
        heard = self.reports.add(report, called_at, self.entries if is_current else None)
        if heard.is_complete:
            self.sizes.settle(report.version)
        self.heard.set()
        self.heard = asyncio.Event()
        return heard

    def _note_call(self) -> float:
        """Its agent says something: now, in monotonic seconds."""
        now = self._clock()
        if not self.is_reachable:
            self._unknown_since = now
        self._called_at = now
        return now

    def _note_version(self, version: int) -> None:
        """It says that it has *version* in force, which may be of a node of its name before it."""
        if 0 < version < self._first_version and self.sizes.are_known:
            self.forget_sizes()
        while self._offered and self._offered[0][0] <= version:
            self._offered.popleft()

    def may_log_in(self, entry: str, *, since: float) -> bool:
        """Whether it can be reached, and has not said after *since* that *entry* is closed."""
        latest = self.latest
        if latest is None or not self.is_reachable or entry not in latest.entries:
            return False
        return latest.at <= since or latest.entries[entry].state is EntryState.OPEN

    def offer(self, configuration: NodeConfiguration) -> None:
        """Another configuration is there for it."""
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
