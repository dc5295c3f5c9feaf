"""What the service knows of one node at the moment: its reports, and what it may have."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.domain.errors import NodeInUse, NodeReportLate, NodeSessionEnded
from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.configuration import NodeConfiguration, NodeEntry
from app.domain.nodes.declaration import DeclaredNode
from app.domain.nodes.entry_sums import EntrySums
from app.domain.nodes.estimates import EstimatedLoad
from app.domain.nodes.gate import EntryState
from app.domain.nodes.node import STALE_AFTER, NodeContact, NodeState
from app.domain.nodes.report import EntryReport, NodeReport
from app.domain.nodes.weaknesses import vulnerabilities

# Seconds that demand looks back.
_MEMORY = 10.0
# Seconds that estimates look back, and between two reports that are kept for them.
ESTIMATED_SECONDS = 60.0
_KEPT_EVERY = 5.0
# Seconds in which an agent has in force what it was offered, unless something keeps it from that.
OUTDATED_AFTER = 30.0
# More than are offered in that time.
_MOST_OFFERED = 1000
_NOTHING = Commitment()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardReport:
    """A report when it came, in monotonic seconds.

    Attributes:
        entries: by name, those that have not changed since an earlier report, too.
        sums: of all of them.
        gone: those of the report before that the node has no more.
        is_based: whether the report was heard that this one builds on.
    """

    at: float
    report: NodeReport
    entries: Mapping[str, EntryReport]
    sums: EntrySums
    gone: frozenset[str]
    is_based: bool

    @property
    def is_complete(self) -> bool:
        """Whether every entry is as the node has it now."""
        return self.is_based and not self.report.more

    def is_base_of(self, report: NodeReport) -> bool:
        """Whether *report* has what changed after this one."""
        own = self.report
        return (report.session, report.base) == (own.session, own.sequence)


@dataclass(slots=True, kw_only=True)
class Demand:
    """What a holder could use of one server: the most of some seconds, and its weight now."""

    weight: float = 0.0
    _peaks: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, connections: int, weight: float, now: float) -> None:
        self.weight = weight
        self._peaks.append((now, connections))
        while self._peaks[0][0] < now - _MEMORY:
            self._peaks.popleft()

    @property
    def connections(self) -> int:
        return max((connections for _, connections in self._peaks), default=0)


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
        largest: the size of the largest of them, by server.
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
        self.largest: Mapping[str, int] = {}
        self.last_session = 0
        self.absent_since: float | None = None
        self._latest: HeardReport | None = None
        self._before: HeardReport | None = None
        self._kept: deque[HeardReport] = deque()
        self._called_at: float | None = None
        self._awaited_since: float | None = None
        # Sizes in the configuration, of the entries that somebody can enter; and those of which
        # another size may be in force.
        self._sizes: Mapping[str, int] = {}
        self._resized: dict[str, Commitment] = {}
        # The first version from which on it is known which sizes may be in force; None: it is not
        # made yet.
        self._known_from: int | None = 0
        self._unknown_since = 0.0
        # The version in force at the last report that had every entry.
        self._in_force = 0
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
        return self._latest

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

    def commitment(self, server: str) -> Commitment:
        return self.commitments.get(server, _NOTHING)

    def limit(self, server: str) -> int | None:
        """The most that it may be given of a server; None: no limit.

        While it may have entries of sizes that nobody knows, no more than it has.
        """
        declared = self.declared.spec.limits.get(server)
        if self.is_drained or self.is_leaving:
            return 0
        if self.knows_sizes:
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
        self._known_from, self._unknown_since = None, self._clock()
        self._resized.clear()

    @property
    def knows_sizes(self) -> bool:
        """Whether what it has in force is a configuration that is known."""
        return self._known_from is not None and self._in_force >= self._known_from

    @property
    def takes_sizes(self) -> bool:
        """Whether other sizes reach it, and it says in time what it has in force.

        Also before it was heard: it goes on from the last leader to this one.
        """
        if self.knows_sizes:
            return self.is_reachable
        is_awaited = self.latest is None and self._awaited_since is not None
        is_overdue = self._clock() - self._unknown_since >= STALE_AFTER
        return (self.is_reachable or is_awaited) and not is_overdue

    @property
    def needs_version(self) -> bool:
        """Whether it needs another version, which its next report then confirms."""
        return self._known_from is None

    def share_of(self, entry: str) -> int:
        """Connections that it was given of an entry."""
        return self._sizes.get(entry, 0)

    def most_of(self, entry: str, server: str, size: int) -> int:
        """The most connections that it can have open for an entry, of *size* at all places."""
        if not self.knows_sizes:
            return min(size, self.commitment(server).liability)
        resized = self._resized.get(entry)
        offered = resized.liability if resized else self.share_of(entry)
        reported = self.latest.entries.get(entry) if self.latest else None
        return max(offered, reported.most_connections if reported else 0)

    def _note_sizes(self, configuration: NodeConfiguration) -> None:
        """Sizes of another version, which is not in force yet, and perhaps never will be."""
        before = self.configuration.version if self.configuration else 0
        version = configuration.version
        if self._known_from is None:
            self._known_from = version
        sizes = {entry.name: entry.size for entry in configuration.entries if entry.logins}
        for name in {name for name, _ in sizes.items() ^ self._sizes.items()}:
            first = Allotment(generation=before, connections=self._sizes.get(name, 0))
            known = self._resized.get(name, Commitment(sent=(first,)))
            sent = Allotment(generation=version, connections=sizes.get(name, 0))
            self._resized[name] = known.send(sent)
        self._sizes = sizes

    def _settle_sizes(self, version: int) -> None:
        """*version* is in force, and what each entry has under it is known."""
        self._in_force = max(version, self._in_force)
        for name, resized in list(self._resized.items()):
            if resized.generation <= version:
                del self._resized[name]
                continue
            # Most versions do not change an entry: it has the size of the last one that did.
            applied = [one.generation for one in resized.sent if one.generation <= version]
            self._resized[name] = resized.acknowledge(max(applied, default=0), 0)

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
        is_based = not report.base or (latest is not None and latest.is_base_of(report))
        entries = dict(latest.entries) if latest else {}
        entries.update((entry.name, entry) for entry in report.entries)
        gone: frozenset[str] = frozenset()
        if self.configuration is not None and report.version == self.configuration.version:
            gone = frozenset(entries.keys() - self.entries.keys())
            for name in gone:
                del entries[name]
        heard = HeardReport(
            at=called_at,
            report=report,
            entries=entries,
            sums=EntrySums.of(entries.values()),
            gone=gone,
            is_based=is_based,
        )
        self._note(heard)
        if heard.is_complete:
            self._settle_sizes(report.version)
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
        if 0 < version < self._first_version and self.knows_sizes:
            self.forget_sizes()
        while self._offered and self._offered[0][0] <= version:
            self._offered.popleft()

    def _note(self, heard: HeardReport) -> None:
        self._before, self._latest = self._latest, heard
        kept = self._kept
        if not kept or kept[-1].at <= heard.at - _KEPT_EVERY:
            kept.append(heard)
        while len(kept) > 1 and kept[1].at <= heard.at - ESTIMATED_SECONDS:
            kept.popleft()

    def is_busy(self, entry: EntryReport) -> bool:
        """Whether its clients had work at the latest report, or since the one before."""
        if entry.in_use or entry.waiting:
            return True
        before = self._before.entries.get(entry.name) if self._before else None
        return before is not None and entry.totals.transactions != before.totals.transactions

    def may_log_in(self, entry: str, *, since: float) -> bool:
        """Whether it can be reached, and has not said after *since* that *entry* is closed."""
        latest = self.latest
        if latest is None or not self.is_reachable or entry not in latest.entries:
            return False
        return latest.at <= since or latest.entries[entry].state is EntryState.OPEN

    def load(self, entry: str) -> EstimatedLoad | None:
        """The load of an entry in the last minute, or since it was idle in that minute.

        None while nothing is known of it.
        """
        latest = self.latest
        # One that is new had no totals before; what it had before its first report is not known.
        first = self._first_kept(entry)
        if latest is None or first is None or entry not in latest.entries or latest.at <= first.at:
            return None
        added = latest.entries[entry].totals.since(first.entries[entry].totals)
        return EstimatedLoad.during(latest.at - first.at, added)

    def _first_kept(self, entry: str) -> HeardReport | None:
        """The report from which on the load of *entry* is measured.

        A load that has just begun, divided by a minute, would look like a small one.
        """
        known = [each for each in self._kept if entry in each.entries]
        if not known:
            return None
        first, *later = known
        for each in later:
            now, before = each.entries[entry], first.entries[entry]
            if now.in_use or now.waiting or now.totals.transactions != before.totals.transactions:
                break
            first = each
        return first

    def offer(self, configuration: NodeConfiguration) -> None:
        """Another configuration is there for it."""
        self._note_sizes(configuration)
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
