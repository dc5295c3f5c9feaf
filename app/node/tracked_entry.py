"""An entry as the agent knows it between two looks."""

from dataclasses import replace

from app.domain.nodes.entry_totals import EntryTotals, WaitClasses, class_of
from app.domain.nodes.gate import EntryState, GatedEntry
from app.domain.nodes.report import EntryReport
from app.node.engine import NOTHING, EntryInForce, EntryMeasure

# After the pooler has closed its connection, Postgres may still have the back-end for this long,
# even inside a statement (`connect_query`).
SETTLE_SECONDS = 0.1
# A look says nothing about times before this.
_LONGEST_LOOK = 1.0

_NO_TOTALS = EntryTotals()


class TrackedEntry:
    """State, size in force and latest measurements of an entry.

    Attributes:
        since: when it got into its state, in seconds of the agent's clock.
        connections: the most that were recently open.
    """

    # Slots, because there are thousands.
    __slots__ = (
        "_busy_seconds",
        "_idle_since",
        "_let_in_since",
        "_looked_at",
        "_looks",
        "_oldest_waits",
        "_reported",
        "_waiting_since",
        "connections",
        "measured",
        "name",
        "since",
        "size",
        "state",
    )

    def __init__(self, name: str, size: int, state: EntryState, now: float) -> None:
        self.name = name
        self.size = size
        self.state = state
        self.since = now
        self.measured = NOTHING
        self.connections = 0
        # Connections that existed until a time.
        self._looks: tuple[tuple[float, int], ...] = ()
        self._waiting_since: float | None = None
        self._idle_since = self._looked_at = now
        # Since when clients wait for their login.
        self._let_in_since: float | None = None
        self._oldest_waits: list[float] = []
        self._busy_seconds = 0.0
        # The latest report, and its inputs.
        self._reported: tuple[tuple[object, ...], EntryReport] | None = None

    def enter(self, state: EntryState, now: float) -> None:
        self.state, self.since = state, now

    def expect(self, size: int) -> None:
        """Note that it may have this *size* until it is read back."""
        self.size = max(self.size, size)

    def read_back(self, in_force: EntryInForce, now: float) -> None:
        """Take in what the pooler itself reports."""
        self.size = in_force.size
        if in_force.is_open is not (self.state is EntryState.OPEN):
            self.enter(EntryState.OPEN if in_force.is_open else EntryState.CLOSING, now)

    @property
    def is_busy(self) -> bool:
        return self.measured.in_use > 0 or self.measured.waiting > 0

    @property
    def is_at_rest(self) -> bool:
        """Whether it is closed and no client needs it open; most entries of a thousand are."""
        return (
            self.state is EntryState.CLOSED
            and self.connections == 0
            and self.measured.waiting == 0
            and self.measured.connections == 0
        )

    @property
    def has_or_wants_connections(self) -> bool:
        return (
            self.state is EntryState.OPEN or self.connections > 0 or self._waiting_since is not None
        )

    def saw(self, measured: EntryMeasure, now: float) -> None:
        """Take in a measurement; a closing entry without connections is closed."""
        was_at_rest, before = self.is_at_rest, self.measured.connections
        self.measured = measured
        # It is not looked at while it is at rest.
        elapsed = 0.0 if was_at_rest else min(_LONGEST_LOOK, now - self._looked_at)
        self._looked_at = now
        if was_at_rest and self.is_at_rest:
            return
        self._busy_seconds += measured.in_use * elapsed
        # Connections that the last look showed may have existed until now.
        recent = [look for look in self._looks if look[0] >= now - SETTLE_SECONDS]
        self._looks = (*recent, (now, before))
        self.connections = max(measured.connections, *[each for _, each in self._looks])
        if self.is_busy:
            self._idle_since = now
        if measured.waiting == 0:
            self._waiting_since = self._let_in_since = None
        else:
            # PgBouncer shows no wait for a client that waits for its login.
            began = min(self._waiting_since or now, now - measured.longest_wait)
            self._note_oldest_wait(elapsed, now)
            # Long queues of busy entries count from their last turn.
            self._waiting_since = max(began, self.since)
        has_settled = self.since < now - SETTLE_SECONDS
        if self.state is EntryState.CLOSING and has_settled and self.connections == 0:
            self.enter(EntryState.CLOSED, now)

    def _note_oldest_wait(self, elapsed: float, now: float) -> None:
        wait = self.measured.longest_wait
        if wait > 0.0:
            self._let_in_since = None
        elif self._let_in_since is None:
            self._let_in_since = now
        else:
            wait = now - self._let_in_since
        missing = class_of(wait) + 1 - len(self._oldest_waits)
        self._oldest_waits.extend([0.0] * missing)
        self._oldest_waits[class_of(wait)] += elapsed

    @property
    def oldest_waits(self) -> WaitClasses:
        """How long the oldest waiter had waited for how long, by class."""
        # Most are zero, and with thousands of entries each would be an object of its own.
        return tuple([round(seconds, 3) if seconds else 0.0 for seconds in self._oldest_waits])

    def gated(self, *, size: int, weight: int, allowed: bool) -> GatedEntry:
        """The entry for the gate, with the intended *size*."""
        return GatedEntry(
            name=self.name,
            size=max(size, self.size),
            state=self.state,
            since=self.since,
            weight=weight,
            allowed=allowed,
            connections=self.connections,
            busy=self.is_busy,
            connecting=self.measured.connecting > 0,
            waiting_since=self._waiting_since,
            idle_since=self._idle_since,
        )

    def report(
        self,
        measured: EntryMeasure,
        totals: EntryTotals | None,
        *,
        held_seconds: float,
        paused: bool,
    ) -> EntryReport:
        """The entry for the service, as of the latest measurement."""
        seen = sum(self._oldest_waits) + self._busy_seconds
        gauges = (self.state, self.size, self.connections, held_seconds, seen)
        basis = (measured, totals, paused, *gauges)
        if self._reported is None or self._reported[0] != basis:
            made = self._as_report(measured, totals or _NO_TOTALS, held_seconds, paused=paused)
            self._reported = basis, made
        return self._reported[1]

    def _as_report(
        self, measured: EntryMeasure, totals: EntryTotals, held_seconds: float, *, paused: bool
    ) -> EntryReport:
        is_paused = paused and self.state is EntryState.CLOSED
        busy, waits = round(self._busy_seconds, 3), self.oldest_waits
        return EntryReport(
            name=self.name,
            state=EntryState.PAUSED if is_paused else self.state,
            size=self.size,
            connections=max(measured.connections, self.connections),
            in_use=measured.in_use,
            clients=measured.clients,
            waiting=measured.waiting,
            longest_wait=measured.longest_wait,
            totals=replace(totals, busy_seconds=busy, oldest_waits=waits)
            if busy or waits
            else totals,
            held_seconds=round(held_seconds, 3),
        )
