"""The agent: it looks at its pooler, decides who may have connections, and does that; repeatedly.

Everything it decides is in `app.domain.nodes`. What it was last told it keeps to when the service
is away.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.domain.nodes.configuration import Entry, NodeConfiguration, newest
from app.domain.nodes.estimates import EntryTotals
from app.domain.nodes.gate import EntryState, GatedEntry, committed, decide
from app.domain.nodes.node import is_fenced
from app.domain.nodes.report import EntryReport, NodeReport, ServerReport
from app.node.engine import Engine, EntryMeasure
from app.node.errors import NodeError
from app.node.tracked_entry import TrackedEntry

# A RELOAD stalls all clients of PgBouncer, for 28 ms where it has 1,000 entries.
RELOAD_INTERVAL = 10.0


class Agent:
    """One node's agent. `start()` first; then `look()` ten times a second.

    Attributes:
        configuration: what the node is to do; allotments and pauses in it are obeyed at once.
        version: of the configuration that the pooler has; 0 before the first.
    """

    def __init__(
        self,
        engine: Engine,
        configuration: NodeConfiguration,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Run *engine* by *configuration*, which has just been received."""
        self._engine = engine
        self._clock = clock
        self.configuration = configuration
        self.version = 0
        self._entries: dict[str, TrackedEntry] = {}
        self._accepted_at = clock()
        self._applied_at = float("-inf")
        # Whether the pooler has another configuration; None: it has not been compared.
        self._is_pending: bool | None = None
        # Entries that are paused in the one that is in force.
        self._paused: frozenset[str] = frozenset()
        self._is_known = False

    def configure(self, configuration: NodeConfiguration) -> None:
        """Take in what the service sent; older parts than there are change nothing."""
        merged = newest(self.configuration, configuration)
        if merged != self.configuration:
            self.configuration = merged
            self._is_pending = None

    def accepted(self, sent_at: float) -> None:
        """The service has accepted the report of *sent_at*, and its answer was taken in."""
        self._accepted_at = max(self._accepted_at, sent_at)

    async def start(self) -> None:
        """Start the pooler, or take over the running one.

        Raises:
            NodeError: it does not start, or does not answer.
        """
        await self._engine.start(self.configuration)
        self._is_pending = None
        await self._read_back()
        for name in self._entries.keys() - {entry.name for entry in self.configuration.entries}:
            # Of an earlier configuration: it goes with the next one that is applied.
            await self._engine.close(name)

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
            for server in self.configuration.servers:
                await self._gate(server)
        except NodeError:
            self._is_known = False
            raise

    async def _read_back(self) -> None:
        """Learn what is open, and how large, from the pooler itself."""
        now = self._clock()
        before, self._entries = self._entries, {}
        for name, entry in (await self._engine.read_back()).items():
            tracked = before.get(name) or TrackedEntry(name, entry.size, EntryState.CLOSING, now)
            tracked.size = entry.size
            if entry.is_open is not (tracked.state is EntryState.OPEN):
                tracked.enter(EntryState.OPEN if entry.is_open else EntryState.CLOSING, now)
            self._entries[name] = tracked
        self._is_known = True

    async def _measure(self) -> None:
        measures = await self._engine.measure()
        now = self._clock()
        for name, tracked in self._entries.items():
            tracked.saw(measures.get(name, EntryMeasure()), now)

    async def _apply_if_due(self) -> None:
        """Put the configuration in force, if none was of late and what is open fits in it."""
        configuration = self.configuration
        if self._is_pending is None:
            self._is_pending = self._engine.differs(configuration)
        elif not self._is_pending:
            return
        if self._is_pending:
            due = self._clock() - self._applied_at >= RELOAD_INTERVAL
            if not due or not all(map(self._fits, configuration.servers)):
                return
            self._applied_at = self._clock()
            await self._engine.apply(configuration)
            await self._read_back()
        if configuration is self.configuration:
            self._is_pending = False
        self.version = configuration.version
        self._paused = frozenset(entry.name for entry in configuration.entries if entry.paused)

    def _fits(self, server: str) -> bool:
        """Whether the sizes to come of what is open are no larger, or fit in the allotment."""
        gated = self._gated(server)
        grows = any(
            entry.state is EntryState.OPEN and entry.size > self._entries[entry.name].size
            for entry in gated
        )
        return not grows or committed(gated) <= self._allotted(server)

    async def _gate(self, server: str) -> None:
        now = self._clock()
        actions = decide(self._allotted(server), self._gated(server), now)
        for name in actions.close:
            await self._engine.close(name)
            self._entries[name].enter(EntryState.CLOSING, now)
        for name in actions.open:
            self._entries[name].enter(EntryState.OPEN, now)
            await self._engine.open(name)

    def _allotted(self, server: str) -> int:
        return self.configuration.servers[server].allotment.connections

    def _gated(self, server: str) -> list[GatedEntry]:
        allowed = not self._is_fenced
        return [
            self._entries[entry.name].gated(
                size=self.configuration.size_of(entry),
                weight=entry.weight,
                # One that is resumed with another password waits until that is in force.
                allowed=allowed and not entry.paused and entry.name not in self._paused,
            )
            for entry in self._served(server)
        ]

    def _served(self, server: str) -> list[Entry]:
        """Entries of a server that the pooler has."""
        return [
            entry
            for entry in self.configuration.entries
            if entry.server == server and entry.name in self._entries
        ]

    @property
    def _is_fenced(self) -> bool:
        connections = sum([tracked.connections for tracked in self._entries.values()])
        return is_fenced(self._clock() - self._accepted_at, connections)

    async def report(self, session: int, sequence: int) -> NodeReport:
        """What the service should know now.

        Raises:
            NodeError: the pooler is away.
        """
        totals = await self._engine.totals()
        backends = await self._engine.backends()
        served = {server: self._served(server) for server in self.configuration.servers}
        return NodeReport(
            session=session,
            sequence=sequence,
            version=self.version,
            engine=self._engine.name,
            servers={server: self._server_report(server) for server in served},
            entries=tuple(
                _entry_report(entry, self._entries[entry.name], totals.get(entry.name))
                for entries in served.values()
                for entry in entries
            ),
            backends={
                server: frozenset(pid for entry in entries for pid in backends.get(entry.name, ()))
                for server, entries in served.items()
            },
        )

    def _server_report(self, server: str) -> ServerReport:
        gated = self._gated(server)
        return ServerReport(
            generation=self.configuration.servers[server].allotment.generation,
            committed=committed(gated),
            connected=sum([entry.connections for entry in gated]),
        )


def _entry_report(entry: Entry, tracked: TrackedEntry, totals: EntryTotals | None) -> EntryReport:
    measured = tracked.measured
    is_paused = entry.paused and tracked.state is EntryState.CLOSED
    return EntryReport(
        name=entry.name,
        state=EntryState.PAUSED if is_paused else tracked.state,
        size=tracked.size,
        connections=measured.connections,
        in_use=measured.in_use,
        clients=measured.clients,
        waiting=measured.waiting,
        longest_wait=measured.longest_wait,
        totals=totals or EntryTotals(),
    )
