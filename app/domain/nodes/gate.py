"""Which tenants of a node may have connections now: there are more tenants than connections.

An entry is open or closed. An open one may have as many connections as its size; a closed one none:
its clients can log in, and wait. What is open never exceeds the allotment:

1. When the allotment shrinks, entries close until the rest fits: idle ones first.
2. The oldest waiter opens first, in the order of wait x weight. None overtakes it, unless long
   transactions of entries that are closing keep it from fitting.
3. Nothing closes while nobody waits. For a waiter an idle entry closes at once; a busy one after
   its *slice*, its part of a round, so that each waiter has its turn within about a round.

`decide` is pure: the agent looks, decides, does, and looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# Within so many seconds each busy entry has a turn, as for pools in the service's own process.
ROUND_SECONDS = 2.0
# A turn costs a login and two looks.
MIN_SLICE_SECONDS = 0.2
# An entry that has been closing for so long is inside a long transaction.
STUCK_SECONDS = 1.0


class EntryState(StrEnum):
    """Whether an entry may have connections."""

    CLOSED = "closed"
    OPEN = "open"
    CLOSING = "closing"
    """It opens none, but some are still inside a transaction."""

    PAUSED = "paused"
    """Closed, because a person paused it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedEntry:
    """One entry as the gate sees it.

    Attributes:
        size: the most connections it can have while it is open, also under a configuration that is
            being applied.
        state: open, closing or closed.
        since: when it got into that state, in monotonic seconds.
        allowed: whether it may be open at all; not when a person paused it.
        connections: of it that Postgres may still have: the most that were open of late.
        busy: whether a transaction runs or a client waits.
        connecting: whether a login to Postgres is under way. PgBouncer takes it for a failed one
            when the entry closes, and then refuses clients until the next one succeeds.
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

        Its next client would get what one of these releases, and the number would not fall.
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
    """What to open and close so that the oldest waiters have connections inside *allotment*."""
    opened = [entry for entry in entries if entry.state is EntryState.OPEN]
    shut = [entry for entry in entries if entry.state is not EntryState.OPEN]
    stuck = {entry.name: entry.connections for entry in shut if _is_stuck(entry, now)}
    reachable = allotment - sum(stuck.values())
    waiters = _in_turn(shut, now)

    closing = [entry for entry in opened if entry.must_close and not entry.connecting]
    staying = _without(opened, closing)
    # Free now, and free once all that closes has closed.
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
    """Those that could open, the oldest first; the wait of a heavier one counts for more."""
    ages = [
        ((now - entry.waiting_since) * entry.weight, entry)
        for entry in shut
        if entry.waiting_since is not None and not entry.must_close
    ]
    return [entry for age, entry in sorted(ages, key=lambda each: (-each[0], each[1].name))]


def _slice(opened: Sequence[GatedEntry], waiters: Sequence[GatedEntry]) -> float:
    """How long a busy entry may stay open while others wait, in seconds for each unit of weight.

    So that all that is busy takes a round, of what can be open at a time.
    """
    at_a_time = sum([entry.size for entry in opened])
    busy = [entry for entry in opened if entry.busy]
    wanted = sum([entry.size * entry.weight for entry in (*busy, *waiters)])
    return ROUND_SECONDS * at_a_time / wanted if wanted else ROUND_SECONDS


def _in_order_of_closing(
    opened: Sequence[GatedEntry], now: float, *, slice_: float | None
) -> list[GatedEntry]:
    """Those that may close: the longest idle first, then those that are furthest over their slice.

    Without a slice all may close.
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
