"""Which tenants of a node may have connections now, as there are more tenants than connections.

An entry is open or closed. An open entry may have as many connections as its size. A closed one has
none: its clients can log in, and wait. Open entries together never exceed the allotment:

1. When the allotment shrinks, entries close until the rest fits: idle ones first.
2. The entry with the oldest waiter opens first, in the order of wait x weight. No other overtakes
   it, unless it does not fit because closing entries have long transactions.
3. While nobody waits, nothing closes. For a waiter, an idle entry closes at once, and a busy one
   after its *slice*, its part of a round: so each waiter has its turn within about a round.

`decide` is pure: the agent observes, decides, acts, and observes again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# Each busy entry has a turn within this many seconds, like pools in the service's own process.
ROUND_SECONDS = 2.0
# A turn costs a login and two looks at the pooler.
MIN_SLICE_SECONDS = 0.2
# An entry that has been closing for this long is inside a long transaction.
STUCK_SECONDS = 1.0


class EntryState(StrEnum):
    """Whether an entry may have connections."""

    CLOSED = "closed"
    OPEN = "open"
    CLOSING = "closing"
    """It opens no connections, but some are still inside a transaction."""

    PAUSED = "paused"
    """A person paused it: it is closed."""


# The states in which an entry must not have another connection before its turn.
WITHOUT_TURN = frozenset({EntryState.CLOSED, EntryState.CLOSING})


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedEntry:
    """One entry as the gate sees it.

    Attributes:
        size: the most connections it can have while it is open; it includes a configuration that is
            being applied.
        state: open, closing or closed.
        since: when it got into that state, in monotonic seconds.
        allowed: whether it may be open; not if a person paused it.
        connections: connections that Postgres may still have: the most that were recently open.
        busy: whether a transaction runs or a client waits.
        connecting: whether a login to Postgres is under way. If the entry closes during a login,
            PgBouncer takes that for a failed login, and refuses clients until one succeeds.
        waiting_since: when the first client began to wait; None: nobody waits.
        idle_since: when it was last busy.
    """

    name: str
    size: int
    state: EntryState
    since: float
    weight: int = 1
    allowed: bool = True
    connections: int = 0
    busy: bool = False
    connecting: bool = False
    waiting_since: float | None = None
    idle_since: float = 0.0

    @property
    def committed(self) -> int:
        """The most connections it can have before the next decision about it."""
        if self.state is EntryState.OPEN:
            return max(self.size, self.connections)
        return self.connections

    @property
    def must_close(self) -> bool:
        """Whether it may not be open, or has more connections than its size.

        A connection that is released would go to the entry's next client, so that the number would
        never fall.
        """
        return not self.allowed or self.connections > self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class GateActions:
    """Entries to open and to close, by name."""

    open: tuple[str, ...] = ()
    close: tuple[str, ...] = ()


def committed(entries: Sequence[GatedEntry]) -> int:
    """The most connections that can be open before the next decision."""
    return sum([entry.committed for entry in entries])


def decide(allotment: int, entries: Sequence[GatedEntry], now: float) -> GateActions:
    """Decide what to open and close, so that the oldest waiters get connections in *allotment*."""
    opened = [entry for entry in entries if entry.state is EntryState.OPEN]
    shut = [entry for entry in entries if entry.state is not EntryState.OPEN]
    stuck = {entry.name: entry.connections for entry in shut if _is_stuck(entry, now)}
    reachable = allotment - sum(stuck.values())
    waiters = _in_turn(shut, now)

    closing = [entry for entry in opened if entry.must_close and not entry.connecting]
    staying = _without(opened, closing)
    # Free now, and free once everything that closes has closed.
    free = allotment - committed(entries)
    room = reachable - committed(staying)

    victims = _in_order_of_closing(staying, now, slice_=None)
    while room < 0 and victims:
        closing.append(victims.pop(0))
        room += closing[-1].committed
    staying = _without(staying, closing)

    victims = _in_order_of_closing(staying, now, slice_=_slice(staying, waiters))
    opening: list[str] = []
    in_order = True
    for waiter in waiters:
        its_own = stuck.get(waiter.name, 0)
        if in_order and waiter.size - waiter.connections <= free:
            opening.append(waiter.name)
            free -= waiter.size - waiter.connections
        elif waiter.size - its_own > reachable:
            continue
        else:
            in_order = False
            while waiter.size - its_own > room and victims:
                closing.append(victims.pop(0))
                room += closing[-1].committed
        room -= waiter.size - its_own
    return GateActions(open=tuple(opening), close=tuple(entry.name for entry in closing))


def _is_stuck(entry: GatedEntry, now: float) -> bool:
    return entry.connections > 0 and entry.since <= now - STUCK_SECONDS


def _without(entries: Sequence[GatedEntry], others: Sequence[GatedEntry]) -> list[GatedEntry]:
    names = {entry.name for entry in others}
    return [entry for entry in entries if entry.name not in names]


def _in_turn(shut: Sequence[GatedEntry], now: float) -> list[GatedEntry]:
    """Entries that could open, the longest wait first; a wait counts times the entry's weight."""
    ages = [
        ((now - entry.waiting_since) * entry.weight, entry)
        for entry in shut
        if entry.waiting_since is not None and not entry.must_close
    ]
    return [entry for age, entry in sorted(ages, key=lambda each: (-each[0], each[1].name))]


def _slice(opened: Sequence[GatedEntry], waiters: Sequence[GatedEntry]) -> float:
    """How long a busy entry may stay open while others wait, in seconds per unit of weight.

    All busy entries together take one round, given how many can be open at a time.
    """
    at_a_time = sum([entry.size for entry in opened])
    busy = [entry for entry in opened if entry.busy]
    wanted = sum([entry.size * entry.weight for entry in (*busy, *waiters)])
    return ROUND_SECONDS * at_a_time / wanted if wanted else ROUND_SECONDS


def _in_order_of_closing(
    opened: Sequence[GatedEntry], now: float, *, slice_: float | None
) -> list[GatedEntry]:
    """Entries that may close: the longest idle first, then those furthest beyond their slice.

    Without a slice, every entry may close.
    """
    able = [entry for entry in opened if not entry.connecting]
    idle = sorted(
        (entry for entry in able if not entry.busy),
        key=lambda entry: (entry.idle_since, entry.name),
    )
    over = {
        entry.name: now - entry.since - max(MIN_SLICE_SECONDS, (slice_ or 0.0) * entry.weight)
        for entry in able
        if entry.busy
    }
    late = sorted(
        (entry for entry in able if entry.busy and (slice_ is None or over[entry.name] >= 0.0)),
        key=lambda entry: (-over[entry.name], entry.name),
    )
    return [*idle, *late]
