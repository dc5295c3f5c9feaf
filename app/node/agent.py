"""The agent: it looks at its pooler, decides who may have connections, and does that; repeatedly.

Everything it decides is in `app.domain.nodes`. It keeps to the latest answer when the service
is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from app.domain.nodes.allotment import Allotment
from app.domain.nodes.configuration import NodeConfiguration, NodeEntry, newest
from app.domain.nodes.estimates import EntryTotals
from app.domain.nodes.gate import EntryState, GatedEntry, committed, decide
from app.domain.nodes.node import is_fenced
from app.domain.nodes.report import EntryReport, NodeReport, ServerReport
from app.domain.nodes.rollout import is_urgent, without_delay
from app.node.census import Census
from app.node.engine import NOTHING, Engine, EntryMeasure
from app.node.errors import CannotRender, NodeError, NotInForce
from app.node.tracked_entries import TrackedEntries
from app.node.tracked_entry import TrackedEntry

# In seconds. A RELOAD stalls all clients of PgBouncer, for 28 ms where it has 1,000 entries, and
# the shorter the fewer it has. So does the time between two: clients stall for 0.3 % of it at most,
# and a node with few entries is up to date at once. What revokes a credential, or lets clients go
# on that wait for nothing else, does not wait so long.
RELOAD_INTERVAL = 10.0
RELOAD_ENTRIES = 1000
URGENT_INTERVAL = 0.5
# Clients of an entry that disappears may end their transactions for so long.
LEAVE_SECONDS = 10.0
# Postgres notices soon that a pooler was killed (`connect_query`), and ends its back-ends. An agent
# that starts another one waits for so long, because many take a while.
LINGER_SECONDS = 1.5
# Entries that are reported between two turns of the event loop, which may be the service's.
_SLICE = 500


class Agent:
    """One node's agent. `start()` first; then `look()` ten times a second.

    Attributes:
        configuration: what the node is to do; allotments and pauses in it are obeyed at once.
        version: of the configuration that the pooler has; 0 before the first.
        problem: why the pooler does not have the latest configuration; empty: it has, or will.
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
        """Run *engine* by *configuration*.

        Args:
            accepted_at: when the last report was sent that the service accepted, by *clock*; now
                if None.
            left: the most connections that an earlier agent's pooler may have had, by server.
        """
        self._engine = engine
        self._clock = clock
        self.version = 0
        self.problem = ""
        self._entries = TrackedEntries()
        self._accepted_at = clock() if accepted_at is None else accepted_at
        self._applied_at = float("-inf")
        # Whether the pooler has another configuration; None: it has not been compared.
        self._is_pending: bool | None = None
        # What the pooler has; None: that of an earlier agent.
        self._in_force: NodeConfiguration | None = None
        self._paused: frozenset[str] = frozenset()
        self._is_known = False
        self._measures: Mapping[str, EntryMeasure] = {}
        self._totals: Mapping[str, EntryTotals] = {}
        self._backends: Mapping[str, Collection[int]] = {}
        self._census = Census()
        # Servers whose allotment has shrunk, and others wait for a report that says so.
        self._shrinking: set[str] = set()
        # Likewise entries that have become smaller.
        self._shrunk: set[str] = set()
        # Whether clients wait for their entry's turn.
        self._do_clients_wait = False
        # Connections of a pooler that ended, by server, and until when Postgres may have them.
        self._left, self._left_until = dict(left or {}), float("inf")
        # Of each entry that is wanted, and of those that the pooler has still.
        self._server_of: dict[str, str] = {}
        self._take(configuration)

    def configure(self, configuration: NodeConfiguration) -> bool:
        """Take in what the service sent; whether it changes anything. Older parts do not."""
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
        self._server_of |= {entry.name: entry.server for entry in configuration.entries}
        self._wanted = {entry.name: entry for entry in configuration.entries}
        self._note_leaving()

    def _note_leaving(self) -> None:
        self._leaving_names = sorted(self._entries.keys() - self._wanted)
        for name in self._server_of.keys() - self._wanted.keys() - self._entries.keys():
            del self._server_of[name]

    def allot(self, allotments: Mapping[str, Allotment]) -> bool:
        """Take in the allotments of an answer; whether one is new."""
        return self.configure(self.configuration.with_allotments(allotments))

    def accepted(self, sent_at: float) -> None:
        """The service has accepted the report of *sent_at*, and its answer was taken in."""
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
        """Measure, and open and close entries; put a new configuration in force when it is time.

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
        """Learn what is open, and how large, from the pooler itself."""
        self._entries.read_back(await self._engine.read_back(), self._clock())
        self._note_leaving()
        self._is_known = True

    async def _measure(self) -> None:
        self._measures = await self._engine.measure()
        self._entries.saw(self._measures, self._clock())

    # -- the configuration -----------------------------------------------------------------------

    async def _apply_if_due(self) -> None:
        """Put the configuration in force, if none was of late and what is open fits in it."""
        wanted = self.configuration
        try:
            if self._is_pending is None:
                differs = await self._engine.differs(wanted)
                if self.configuration is not wanted:
                    return  # the next look compares the one that has come meanwhile
                self._is_pending = differs
            if not (self._is_pending or self._engine.is_outdated()):
                self._is_applied(wanted)
                return
            self._is_pending = True
            chosen = self._due(wanted)
            if chosen is None:
                return
            self._applied_at = self._clock()
            await self._engine.apply(chosen)
        except (CannotRender, NotInForce) as error:
            # What the pooler has goes on. This one is tried again, in case others mend it.
            self.problem = str(error)
            self._applied_at = self._clock()
            if self.configuration is wanted:
                self._is_pending = True
            if isinstance(error, NotInForce):
                await self._read_back()
            return
        await self._read_back()
        # What was opened by the sizes before, after the last look.
        await self._measure()
        self._is_applied(chosen)
        if self.configuration is not chosen:
            self._is_pending = None

    def _is_applied(self, configuration: NodeConfiguration) -> None:
        self._is_pending, self.problem = False, ""
        if configuration is self._in_force:
            return
        self._census.begin(self._in_force, configuration, self._clock())
        self._in_force = configuration
        self._paused = frozenset(entry.name for entry in configuration.entries if entry.paused)
        if configuration is self.configuration:
            self.version = configuration.version

    def _due(self, wanted: NodeConfiguration) -> NodeConfiguration | None:
        """What is to be applied now: all that is wanted, what of it cannot wait, or nothing."""
        waited = self._clock() - self._applied_at
        fits = all(map(self._fits, wanted.servers))
        if waited >= self._interval and fits and self._have_left():
            return wanted
        in_force = self._in_force
        if waited < URGENT_INTERVAL or in_force is None:
            return None
        if is_urgent(in_force, wanted):
            sizes = {name: tracked.size for name, tracked in self._entries.items()}
            return without_delay(in_force, wanted, sizes)
        return wanted if fits and self._have_left() and self._is_any_stuck() else None

    @property
    def _interval(self) -> float:
        """Seconds between two RELOADs that could wait."""
        scaled = RELOAD_INTERVAL * len(self._entries) / RELOAD_ENTRIES
        return min(RELOAD_INTERVAL, max(URGENT_INTERVAL, scaled))

    def _fits(self, server: str) -> bool:
        """Whether the sizes to come of what is open are no larger, or fit in the allotment."""
        gated = self._gated(server)
        grows = any(
            entry.state is EntryState.OPEN and entry.size > self._entries[entry.name].size
            for entry in gated
        )
        return not grows or committed(gated) <= self._allotted(server)

    def _have_left(self) -> bool:
        """Whether the entries that disappear have no connections, or had their time."""
        latest = self._clock() - LEAVE_SECONDS
        return all(
            tracked.state is not EntryState.OPEN
            and (tracked.connections == 0 or tracked.since <= latest)
            for tracked in self._leaving()
        )

    def _is_any_stuck(self) -> bool:
        """Whether clients wait for an entry that is larger than the allotment, until it shrinks."""
        return any(
            tracked.measured.waiting > 0 and tracked.size > self._allotted(entry.server) > 0
            for entry, tracked in self._served(self._entries.awake)
        )

    # -- the gate --------------------------------------------------------------------------------

    async def _gate(self, server: str) -> None:
        gated = self._gated(server)
        self._do_clients_wait |= any(map(_waits_for_turn, gated))
        actions = decide(self._allotted(server), gated, self._clock())
        if actions.close:
            await self._engine.close(*actions.close)
            for name in actions.close:
                self._entries.enter(name, EntryState.CLOSING, self._clock())
        if actions.open:
            for name in actions.open:
                self._entries.enter(name, EntryState.OPEN, self._clock())
            await self._engine.open(*actions.open)

    async def _cut_strangers(self) -> None:
        """Cut clients who may not be there.

        They logged in before their credential was revoked, or began to and took their time.
        """
        if self._in_force is None or not self._census.is_due(self._clock()):
            return
        clients = await self._engine.clients()
        strangers = self._census.take(clients, self._in_force, self._clock())
        for name, users in strangers.items():
            if name in self._entries and await self._engine.cut(name, users):
                self._entries.enter(name, EntryState.CLOSING, self._clock())

    def _servers(self) -> list[str]:
        """Those of the configuration, and those that only entries have which disappear."""
        known = self.configuration.servers
        leaving = {self._server_of.get(tracked.name) for tracked in self._leaving()}
        return [*known, *sorted(each for each in leaving if each and each not in known)]

    def _allotted(self, server: str) -> int:
        """Connections that entries may have now."""
        known = self.configuration.servers.get(server)
        return max(0, known.allotment.connections - self._lingering(server)) if known else 0

    def _lingering(self, server: str) -> int:
        """Connections that a pooler left behind, and Postgres may still have."""
        return self._left.get(server, 0) if self._clock() < self._left_until else 0

    def _gated(self, server: str) -> list[GatedEntry]:
        """Entries of a server that have, or want, connections."""
        is_fenced = self._is_fenced
        staying = [
            tracked.gated(
                size=self.configuration.size_of(entry),
                weight=entry.weight,
                # One that is resumed with another password waits until that is in force.
                allowed=entry.size > 0
                and not (is_fenced or entry.paused or entry.name in self._paused),
            )
            for entry, tracked in self._served(self._entries.awake)
            if entry.server == server and tracked.has_or_wants_connections
        ]
        leaving = [
            tracked.gated(size=tracked.size, weight=1, allowed=False)
            for tracked in self._leaving()
            # One that is not known may be of any server.
            if tracked.has_or_wants_connections
            and self._server_of.get(tracked.name, server) == server
        ]
        return staying + leaving

    def _served(self, names: Iterable[str]) -> list[tuple[NodeEntry, TrackedEntry]]:
        """Those of these entries that are wanted, and the pooler has."""
        return [
            (self._wanted[name], self._entries[name])
            for name in names
            if name in self._wanted and name in self._entries
        ]

    def _leaving(self) -> list[TrackedEntry]:
        """Entries of the pooler that are wanted no more."""
        return [self._entries[name] for name in self._leaving_names]

    @property
    def _is_fenced(self) -> bool:
        return is_fenced(self._clock() - self._accepted_at, self._entries.connections)

    # -- reports ---------------------------------------------------------------------------------

    async def report(self, session: int, sequence: int, *, problem: str = "") -> NodeReport:
        """What the service should know now.

        While the pooler does not answer, that is what was last known, and the *problem*: it opens
        nothing by itself.
        """
        if not problem:
            try:
                self._totals = await self._engine.totals()
                self._backends = await self._engine.backends()
            except NodeError as error:
                problem = str(error)
        # Of thousands that have changed together, each is made in its turn, and kept.
        for number, served in enumerate(self._served(self._wanted), start=1):
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
            entries=tuple(self._entry_report(*each) for each in self._served(self._wanted)),
            backends={server: self._backends_of(server) for server in servers},
            users=self._census.users,
            problem=problem or self.problem,
        )

    def _entry_report(self, entry: NodeEntry, tracked: TrackedEntry) -> EntryReport:
        measured = self._measures.get(entry.name, NOTHING)
        return tracked.report(measured, self._totals.get(entry.name), paused=entry.paused)

    @property
    def is_report_due(self) -> bool:
        """Whether something smaller is in force that is not reported: others wait for that."""
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
                tracked.connections <= entry.size for entry, tracked in self._served(self._shrunk)
            )
        )

    @property
    def is_pressed(self) -> bool:
        """Whether others wait for what the next look does."""
        return self._do_clients_wait or bool(self._shrinking)

    def _server_report(self, server: str) -> ServerReport:
        lingering, gated = self._lingering(server), self._gated(server)
        return ServerReport(
            generation=self.configuration.servers[server].allotment.generation,
            committed=committed(gated) + lingering,
            connected=sum([entry.connections for entry in gated]) + lingering,
        )

    def _backends_of(self, server: str) -> frozenset[int]:
        """Also of entries that disappear."""
        return frozenset(
            pid
            for name, pids in self._backends.items()
            if self._server_of.get(name) == server
            for pid in pids
        )


def _waits_for_turn(entry: GatedEntry) -> bool:
    return entry.allowed and entry.state is not EntryState.OPEN and entry.waiting_since is not None
