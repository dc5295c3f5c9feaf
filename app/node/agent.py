"""The agent: it observes its pooler, decides who may have connections, acts, and repeats that.

Its decisions are in `app.domain.nodes`. While the service is away, it keeps to the latest answer.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from app import __version__
from app.domain.nodes.allotment import Allotment
from app.domain.nodes.configuration import NodeConfiguration, NodeEntry, newest
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.gate import EntryState, GatedEntry, committed, decide
from app.domain.nodes.node import is_fenced
from app.domain.nodes.report import EntryReport, NodeReport, ServerReport
from app.domain.nodes.rollout import is_urgent, revoked, without_delay
from app.node.census import Census
from app.node.engine import NOTHING, Backend, Engine, EntryMeasure
from app.node.errors import CannotRender, NodeError, NotInForce
from app.node.tracked_entries import TrackedEntries
from app.node.tracked_entry import TrackedEntry
from app.node.transactions_under_way import TransactionsUnderWay

# In seconds. A RELOAD stalls all clients of PgBouncer: for 28 ms with 1,000 entries, shorter with
# fewer. So the interval depends on that time: clients stall for at most 0.3 % of it, and a node
# with few entries is up to date at once. Changes that revoke a credential, or that waiting clients
# need, do not wait this long; to replace connections waits a part of it.
RELOAD_INTERVAL = 10.0
RELOAD_ENTRIES = 1000
URGENT_INTERVAL = 0.5
RECYCLE_SHARE = 0.2
# Clients of an entry that is removed have this long to end their transactions.
LEAVE_SECONDS = 10.0
# Postgres notices soon that a pooler was killed (`connect_query`), and ends its back-ends. An agent
# that starts another pooler waits this long, because ending many takes a while.
LINGER_SECONDS = 1.5
# Entries reported between two turns of the event loop, which may be the service's.
_SLICE = 500


class Agent:
    """The agent of a node: call `start()` first, then `look()` ten times a second.

    Attributes:
        configuration: the node's configuration; its allotments and pauses take effect at once.
        version: version of the configuration that the pooler has; 0 before the first.
        problem: why the pooler does not have the latest configuration; empty if it has, or soon
            will.
    """

    def __init__(
        self,
        engine: Engine,
        configuration: NodeConfiguration,
        *,
        accepted_at: float | None = None,
        left: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Run *engine* with *configuration*.

        Args:
            accepted_at: when the last accepted report was sent, by *clock*; None: now.
            left: the most connections that an earlier agent's pooler may still have, by server.
        """
        self._engine = engine
        self._clock = clock
        self.version = 0
        self.problem = ""
        self._entries = TrackedEntries()
        self._accepted_at = clock() if accepted_at is None else accepted_at
        self._applied_at = float("-inf")
        # Whether the pooler has another configuration; None: not compared yet.
        self._is_pending: bool | None = None
        # The pooler's configuration; None: that of an earlier agent.
        self._in_force: NodeConfiguration | None = None
        self._paused: frozenset[str] = frozenset()
        # Entries that a revoked user could still enter, because the configuration that revokes the
        # credential cannot be applied. They get no connections until it is applied.
        self._withheld: Collection[str] = frozenset()
        self._is_known = False
        self._measures: Mapping[str, EntryMeasure] = {}
        self._totals: Mapping[str, EntryTotals] = {}
        self._backends: Mapping[str, Collection[Backend]] = {}
        self._under_way = TransactionsUnderWay(clock())
        self._census = Census()
        # Servers whose allotment has shrunk; others wait for a report of that.
        self._shrinking: set[str] = set()
        # Likewise, entries that have become smaller.
        self._shrunk: set[str] = set()
        # Whether clients wait for their entry's turn.
        self._do_clients_wait = False
        # Connections of an ended pooler, by server, and until when Postgres may have them.
        self._left, self._left_until = dict(left or {}), float("inf")
        self._take(configuration)

    def configure(self, configuration: NodeConfiguration) -> bool:
        """Take in a configuration; return whether it changes anything. Older parts do not."""
        merged = newest(self.configuration, configuration)
        before = self.configuration
        if merged == before:
            return False
        self._shrinking |= {
            name
            for name, server in merged.servers.items()
            if name in before.servers
            and server.allotment.connections < before.servers[name].allotment.connections
        }
        sizes = {entry.name: entry.size for entry in before.entries}
        self._shrunk |= {
            entry.name for entry in merged.entries if entry.size < sizes.get(entry.name, 0)
        }
        self._take(merged)
        return True

    def _take(self, configuration: NodeConfiguration) -> None:
        self.configuration = configuration
        self._is_pending = None
        self._entries.want(configuration.entries)

    def allot(self, allotments: Mapping[str, Allotment]) -> bool:
        """Take in the allotments of an answer; return whether one is new."""
        return self.configure(self.configuration.with_allotments(allotments))

    def accepted(self, sent_at: float) -> None:
        """Note that the service accepted the report of *sent_at*; its answer was taken in."""
        self._accepted_at = max(self._accepted_at, sent_at)

    async def start(self) -> None:
        """Start the pooler, or take over the running one.

        Raises:
            NodeError: it does not start, or does not answer.
        """
        before = {
            server: committed(self._gated(server)) + self._lingering(server)
            for server in {*self._servers(), *self._left}
        }
        try:
            ran = await self._engine.start(self.configuration)
        except CannotRender:
            if self._in_force is None:
                raise
            ran = await self._engine.start(self._in_force)
        self._left = {} if ran else before
        self._left_until = self._clock() + LINGER_SECONDS
        self._is_pending = self._in_force = None
        self._applied_at = float("-inf")
        await self._read_back()

    async def look(self) -> None:
        """Measure, open and close entries, and apply a new configuration when it is time.

        Raises:
            NodeError: the pooler is away, or refuses. The next look begins by reading back.
        """
        try:
            if not self._is_known:
                await self._read_back()
            await self._measure()
            await self._apply_if_due()
            await self._cut_strangers()
            self._do_clients_wait = False
            for server in self._servers():
                await self._gate(server)
        except NodeError:
            self._is_known = False
            raise

    async def _read_back(self) -> None:
        """Read from the pooler itself which entries are open, and their sizes."""
        self._entries.read_back(await self._engine.read_back(), self._clock())
        self._is_known = True

    async def _measure(self) -> None:
        self._measures = await self._engine.measure()
        self._entries.saw(self._measures, self._clock())

    # -- the configuration -----------------------------------------------------------------------

    async def _apply_if_due(self) -> None:
        """Apply the configuration, if none was applied recently and open entries fit into it."""
        wanted = self.configuration
        try:
            if self._is_pending is None:
                differs = await self._engine.differs(wanted)
                if self.configuration is not wanted:
                    return  # the next look compares the newer one
                self._is_pending = differs
            if not (self._is_pending or self._engine.is_outdated()):
                self._is_applied(wanted)
                return
            self._is_pending = True
            chosen = self._due(wanted)
            if chosen is None:
                return
            self._applied_at = self._clock()
            self._entries.expect({entry.name: chosen.size_of(entry) for entry in chosen.entries})
            await self._engine.apply(chosen)
        except (CannotRender, NotInForce) as error:
            # The pooler keeps its present configuration. This one is tried again, in case someone
            # fixes the cause.
            self.problem = str(error)
            self._applied_at = self._clock()
            if self._in_force is not None:
                self._withheld = revoked(self._in_force, wanted).keys()
            if self.configuration is wanted:
                self._is_pending = True
            await self._read_back()
            return
        await self._read_back()
        # Entries opened with the previous sizes, after the last look.
        await self._measure()
        self._is_applied(chosen)
        if self.configuration is not chosen:
            self._is_pending = None

    def _is_applied(self, configuration: NodeConfiguration) -> None:
        self._is_pending, self.problem, self._withheld = False, "", frozenset()
        if configuration is self._in_force:
            return
        self._census.begin(self._in_force, configuration, self._clock())
        self._in_force = configuration
        self._paused = frozenset(entry.name for entry in configuration.entries if entry.paused)
        if configuration is self.configuration:
            self.version = configuration.version

    def _due(self, wanted: NodeConfiguration) -> NodeConfiguration | None:
        """The configuration to apply now: all of it, the urgent part of it, or None."""
        waited = self._clock() - self._applied_at
        fits = all(map(self._fits, wanted.servers))
        if waited >= self._interval and fits and self._have_left():
            return wanted
        in_force = self._in_force
        if waited < URGENT_INTERVAL or in_force is None:
            return None
        if is_urgent(in_force, wanted, recycles=waited >= RECYCLE_SHARE * self._interval):
            sizes = {name: tracked.size for name, tracked in self._entries.items()}
            return without_delay(in_force, wanted, sizes)
        return wanted if fits and self._have_left() and self._is_any_stuck() else None

    @property
    def _interval(self) -> float:
        """Seconds between two RELOADs that are not urgent."""
        scaled = RELOAD_INTERVAL * len(self._entries) / RELOAD_ENTRIES
        return min(RELOAD_INTERVAL, max(URGENT_INTERVAL, scaled))

    def _fits(self, server: str) -> bool:
        """Whether the new sizes of open entries are no larger, or fit into the allotment."""
        gated = self._gated(server)
        grows = any(
            entry.state is EntryState.OPEN and entry.size > self._entries[entry.name].size
            for entry in gated
        )
        return not grows or committed(gated) <= self._allotted(server)

    def _have_left(self) -> bool:
        """Whether the entries to remove have no connections, or had their time."""
        latest = self._clock() - LEAVE_SECONDS
        return all(
            tracked.state is not EntryState.OPEN
            and (tracked.connections == 0 or tracked.since <= latest)
            for tracked in self._entries.leaving
        )

    def _is_any_stuck(self) -> bool:
        """Whether clients wait for an entry that is larger than the allotment, until it shrinks."""
        return any(
            tracked.measured.waiting > 0 and tracked.size > self._allotted(entry.server) > 0
            for entry, tracked in self._entries.served(self._entries.awake)
        )

    # -- the gate --------------------------------------------------------------------------------

    async def _gate(self, server: str) -> None:
        gated = self._gated(server)
        self._do_clients_wait |= any(map(_waits_for_turn, gated))
        actions = decide(self._allotted(server), gated, self._clock())
        # Whatever is reported in the meantime counts what is about to open, and what still closes.
        for name in actions.open:
            self._entries.enter(name, EntryState.OPEN, self._clock())
        if actions.close:
            await self._engine.close(*actions.close)
            for name in actions.close:
                self._entries.enter(name, EntryState.CLOSING, self._clock())
        if actions.open:
            await self._engine.open(*actions.open)

    async def close(self) -> None:
        """Close all entries, whatever the configuration says, until the next agent opens them.

        Raises:
            NodeError: the pooler is away, or refuses.
        """
        await self._read_back()
        open_ = [each.name for each in self._entries.values() if each.state is EntryState.OPEN]
        await self._engine.close(*open_)

    async def _cut_strangers(self) -> None:
        """Cut clients that may no longer be connected.

        They logged in, or began to, before their credential was revoked.
        """
        if self._in_force is None or not self._census.is_due(self._clock()):
            return
        clients = await self._engine.clients()
        strangers = self._census.take(clients, self._in_force, self._clock())
        for name, users in strangers.items():
            if name in self._entries and await self._engine.cut(name, users):
                self._entries.enter(name, EntryState.CLOSING, self._clock())

    def _servers(self) -> list[str]:
        """The servers in the configuration, and those of entries that will be removed."""
        known = self.configuration.servers
        leaving = {self._entries.server_of(tracked.name) for tracked in self._entries.leaving}
        return [*known, *sorted(each for each in leaving if each and each not in known)]

    def _allotted(self, server: str) -> int:
        """The connections that entries may have now."""
        known = self.configuration.servers.get(server)
        return max(0, known.allotment.connections - self._lingering(server)) if known else 0

    def _lingering(self, server: str) -> int:
        """Connections that an ended pooler left behind, and that Postgres may still have."""
        return self._left.get(server, 0) if self._clock() < self._left_until else 0

    def _gated(self, server: str) -> list[GatedEntry]:
        """The entries of a server that have connections, or want some."""
        silence = self._clock() - self._accepted_at
        may_open = not is_fenced(silence, self._entries.connections)
        staying = [
            tracked.gated(
                size=self.configuration.size_of(entry),
                weight=entry.weight,
                # A resumed entry with another password waits until that is in force.
                allowed=entry.size > 0
                and may_open
                and not (entry.paused or entry.name in self._paused)
                and entry.name not in self._withheld,
            )
            for entry, tracked in self._entries.served(self._entries.awake)
            if entry.server == server and tracked.has_or_wants_connections
        ]
        leaving = [
            tracked.gated(size=tracked.size, weight=1, allowed=False)
            for tracked in self._entries.leaving
            # An unknown entry may belong to any server.
            if tracked.has_or_wants_connections
            and self._entries.server_of(tracked.name) in {None, server}
        ]
        return staying + leaving

    # -- reports ---------------------------------------------------------------------------------

    async def report(self, session: int, sequence: int, *, problem: str = "") -> NodeReport:
        """Make a report for the service.

        While the pooler does not answer, it has the last known state and the *problem*: the pooler
        opens nothing by itself.
        """
        if not problem:
            try:
                self._totals = await self._engine.totals()
                self._backends = await self._engine.backends()
                self._under_way.saw(self._backends, self._clock())
            except NodeError as error:
                problem = str(error)
        # If thousands have changed together, their reports are made one by one, and kept.
        for number, served in enumerate(self._entries.served(), start=1):
            self._entry_report(*served)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        servers = {server: self._server_report(server) for server in self.configuration.servers}
        self._shrinking = {
            server
            for server in self._shrinking & servers.keys()
            if servers[server].committed > self.configuration.servers[server].allotment.connections
        }
        if self._is_shrunk:
            self._shrunk.clear()
        return NodeReport(
            session=session,
            sequence=sequence,
            version=self.version,
            engine=self._engine.name,
            servers=servers,
            entries=tuple(self._entry_report(*each) for each in self._entries.served()),
            backends={server: self._backends_of(server) for server in servers},
            users=self._census.users,
            problem=problem or self.problem,
            agent=__version__,
            can_recycle=True,
        )

    def _entry_report(self, entry: NodeEntry, tracked: TrackedEntry) -> EntryReport:
        measured = self._measures.get(entry.name, NOTHING)
        return tracked.report(
            measured,
            self._totals.get(entry.name),
            held_seconds=self._under_way.seconds(entry.name),
            paused=entry.paused,
        )

    @property
    def is_report_due(self) -> bool:
        """Whether something smaller is in force but not reported: others wait for that."""
        return self._is_shrunk or any(
            committed(self._gated(server)) <= self._allotted(server) for server in self._shrinking
        )

    @property
    def _is_shrunk(self) -> bool:
        """Whether entries that have become smaller have no more connections than their sizes."""
        return (
            bool(self._shrunk)
            and self.version == self.configuration.version
            and all(
                tracked.connections <= entry.size
                for entry, tracked in self._entries.served(self._shrunk)
            )
        )

    @property
    def is_pressed(self) -> bool:
        """Whether others wait for the effect of the next look."""
        return self._do_clients_wait or bool(self._shrinking)

    def _server_report(self, server: str) -> ServerReport:
        lingering, gated = self._lingering(server), self._gated(server)
        return ServerReport(
            generation=self.configuration.servers[server].allotment.generation,
            committed=committed(gated) + lingering,
            connected=sum([entry.connections for entry in gated]) + lingering,
        )

    def _backends_of(self, server: str) -> frozenset[int]:
        """Includes entries that will be removed."""
        return frozenset(
            each.pid
            for name, backends in self._backends.items()
            if self._entries.server_of(name) == server
            for each in backends
        )


def _waits_for_turn(entry: GatedEntry) -> bool:
    return entry.allowed and entry.state is not EntryState.OPEN and entry.waiting_since is not None
