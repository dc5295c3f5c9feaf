"""The callers that wait for a connection of one pool, and who is next.

Within a tenant: first come, first served. Between tenants the smallest key is next: the least use
per weight, see `recent_use`. Ties go to the longest wait; a tenant at its `max_leases` is skipped.
So a pool of one tenant is a plain queue. Nothing here awaits.

Each event costs O(log n), because tenants are in a heap. A tenant is placed again when its leases,
callers or limits change; otherwise keys only grow with time, so that checking the first is enough.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from time import monotonic

from app.pools.connection import PooledConnection
from app.pools.ranking import Ranking
from app.pools.recent_use import uses_much_less
from app.pools.tenant_state import TenantState
from app.pools.wait_deadlines import WaitDeadlines
from app.pools.waiter import Waiter

# Stop waiting for an expected connection once this many times as many connections have come back
# that were expected after it.
_SLOW = 2


@dataclass(slots=True, eq=False, repr=False)
class _Line:
    """The callers of one tenant.

    Attributes:
        stale: the lines of its queue whose place must be computed again.
        callers: its waiting callers, in the order in which they came.
        gone: those of them that gave up but have not removed themselves yet.
        expected: number of connections expected for them.
        unexpected: the first of them for which none is expected.
        servable: how many of them could be served at once.
    """

    tenant: TenantState
    stale: dict[_Line, None]
    callers: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)
    gone: set[Waiter] = field(default_factory=set)
    expected: int = 0
    servable: int = 0
    unexpected: Waiter | None = None

    @property
    def waiting(self) -> int:
        return len(self.callers) + len(self.gone)

    def note_change(self) -> None:
        """Compute its place again before the next use."""
        self.stale[self] = None

    @property
    def is_outdated(self) -> bool:
        """Whether `unexpected`, or a caller ahead of it, has given up."""
        if self.unexpected is None:
            return False
        # No generator: this runs on every lease.
        for waiter in islice(self.callers, self.expected + 1):  # noqa: SIM110
            if waiter.future.done():
                return True
        return False

    def first(self, beyond: int = 0) -> Waiter | None:
        """The first caller that still waits, skipping *beyond* others."""
        left = beyond
        for waiter in self.callers:
            if waiter.future.done():
                break
            if not left:
                return waiter
            left -= 1
        else:
            return None
        # A caller that gave up is skipped only once.
        self.gone.update(waiter for waiter in self.callers if waiter.future.done())
        for waiter in self.gone:
            self.callers.pop(waiter, None)
        self.note_change()
        return self.first(beyond)


class WaitQueue:
    """Waiters by tenant, each with a deadline.

    Attributes:
        count: number of waiting callers.
        expected: for each connection about to come back, the tenant whose turn it probably is then.
    """

    def __init__(
        self, *, on_overdue: Callable[[Waiter], None], clock: Callable[[], float] = monotonic
    ) -> None:
        """Call *on_overdue* with the callers that still wait at their deadlines, to fail them."""
        self.count = 0
        self.expected: dict[PooledConnection, tuple[_Line, int]] = {}
        self._clock = clock
        self._lines: dict[TenantState, _Line] = {}
        self._stale: dict[_Line, None] = {}
        # Lines with a caller for whom no connection is expected, by the tenant's key, and when its
        # first caller began to wait.
        self._order: Ranking[_Line, tuple[float, ...]] = Ranking()
        self._expectations = count()
        self._servable = 0
        self._deadlines = WaitDeadlines(on_overdue, clock)

    def __iter__(self) -> Iterator[Waiter]:
        """Every waiter, in no particular order."""
        for line in self._lines.values():
            yield from line.callers
            yield from line.gone

    def positions(self) -> Iterator[tuple[Waiter, int]]:
        """The waiters, each with its position among those of its tenant, from 1."""
        for line in self._lines.values():
            waiting = (waiter for waiter in line.callers if not waiter.future.done())
            yield from ((waiter, place) for place, waiter in enumerate(waiting, start=1))

    def add(self, waiter: Waiter) -> None:
        """Add *waiter* behind the others of its tenant."""
        tenant = waiter.tenant_state
        line = self._lines.get(tenant)
        if line is None:
            if len(self._lines) == 1:
                # While it was alone, it had no entry.
                for alone in self._lines.values():
                    alone.note_change()
            line = self._lines[tenant] = _Line(tenant, self._stale)
            tenant.wait_begun(line, waiter.since)
        line.callers[waiter] = None
        self.count += 1
        line.note_change()
        self._deadlines.add(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Remove *waiter* if it is still here."""
        line = self._lines.get(waiter.tenant_state)
        if line is None:
            return
        if waiter in line.callers:
            del line.callers[waiter]
        elif waiter in line.gone:
            line.gone.remove(waiter)
        else:
            return
        self.count -= 1
        if line.callers or line.gone:
            line.note_change()
        else:
            self._drop(line)

    def remove_tenant(self, tenant: TenantState) -> list[Waiter]:
        """Remove and return every waiter of *tenant*."""
        line = self._lines.get(tenant)
        if line is None:
            return []
        removed = [*line.callers, *line.gone]
        self._drop(line)
        self.count -= len(removed)
        return removed

    def clear(self) -> list[Waiter]:
        """Remove and return every waiter."""
        everybody = [
            waiter for tenant in list(self._lines) for waiter in self.remove_tenant(tenant)
        ]
        self._deadlines.clear()
        return everybody

    def waiting_seconds(self, now: float) -> float:
        """Sum of the present waits until *now*, in seconds."""
        return sum([now - waiter.since for waiter in self])

    # -- who is next -------------------------------------------------------------------------

    def next(self, expected: TenantState | None = None) -> Waiter | None:
        """The waiter to serve now, still in the queue; None if no waiter may be served.

        It is one of the *expected* tenant, if that is still possible and no tenant with much less
        use has come.
        """
        if not self.count:
            return None
        if len(self._lines) == 1:
            [only] = self._lines.values()
            return only.first() if only.tenant.can_lease else None
        if expected is not None and expected.can_lease:
            line = self._lines.get(expected)
            if line is not None and (waiter := line.first()) is not None:
                return self._overtaking(line) or waiter
        leading = self._leading()
        if not self.expected:
            return leading.unexpected if leading is not None else None
        now = self._clock()
        able = {line for line, _ in self.expected.values() if line.tenant.can_lease}
        if leading is not None:
            able.add(leading)
        callers = [waiter for line in able if (waiter := line.first()) is not None]
        return min(
            callers, key=lambda waiter: (waiter.tenant_state.key(now), waiter.since), default=None
        )

    @property
    def servable(self) -> int:
        """How many waiters could be served at once if there were enough connections."""
        self._place_stale()
        return self._servable

    def expect(self, connection: PooledConnection, returning: TenantState) -> Waiter | None:
        """Predict who will be next when *returning* has given *connection* back; None if nobody.

        Each of several connections that come back together is expected for a different waiter.
        """
        if connection in self.expected:
            self._forget(connection)
        if len(self._lines) == 1:
            [line] = self._lines.values()
            more = line.expected + (line.tenant is not returning)
            waiter = line.first(beyond=line.expected) if line.tenant.has_room_for(more) else None
            if waiter is None:
                return None
            line.note_change()
        elif (leading := self._leading_after(returning)) is None:
            return None
        else:
            line, waiter = leading, leading.unexpected
            if line.expected + 1 < len(line.callers):
                line.note_change()
            else:
                # Usually no other caller of the tenant waits.
                line.unexpected = None
                self._order.drop(line)
        line.expected += 1
        self.expected[connection] = line, next(self._expectations)
        return waiter

    def unexpect(self, connection: PooledConnection) -> TenantState | None:
        """Note that *connection* has come back.

        Return the tenant that it was expected for, if any.
        """
        if connection not in self.expected:
            return None
        line, number = self._forget(connection)
        for slow, (_, earlier) in self.expected.items():
            # A connection that takes too long to come back is no longer expected for anybody.
            if number - earlier > _SLOW * (len(self.expected) + 1):
                self._forget(slow)
            break
        return line.tenant

    def _forget(self, connection: PooledConnection) -> tuple[_Line, int]:
        line, number = self.expected.pop(connection)
        line.expected -= 1
        if line.callers:
            line.note_change()
        return line, number

    def _leading(self) -> _Line | None:
        """The line of the next waiter for which no connection is expected."""
        self._place_stale()
        now = self._clock()
        while (first := self._order.first) is not None:
            line, (known_key, since) = first
            if line.is_outdated:
                self._place(line)
                continue
            if not (line.tenant.leased or line.expected):
                return line
            key = line.tenant.key(now, more=line.expected)
            if key <= known_key:
                return line
            self._order.put(line, (key, since))
        return None

    def _leading_after(self, returning: TenantState) -> _Line | None:
        """The same line, once a lease of *returning* has ended."""
        line, own = self._leading(), self._lines.get(returning)
        if own is None or own is line:
            return line
        if own.is_outdated:
            self._place(own)
        return own if self._precedes(own, line) else line

    def _overtaking(self, line: _Line) -> Waiter | None:
        """The next waiter for which no connection is expected, if its tenant uses much less."""
        leading = self._leading()
        if leading is None or leading is line:
            return None
        now = self._clock()
        is_small = uses_much_less(leading.tenant.key(now), line.tenant.key(now))
        return leading.unexpected if is_small else None

    def _precedes(self, own: _Line, other: _Line | None) -> bool:
        """Whether *own* precedes *other* once one lease of its tenant has ended."""
        waiter, tenant = own.unexpected, own.tenant
        if waiter is None or not tenant.has_room_for(own.expected):
            return False
        if other is None or other.unexpected is None:
            return True
        now = self._clock()
        theirs = other.tenant.key(now, more=other.expected), other.unexpected.since
        return (tenant.key(now, more=own.expected - 1), waiter.since) < theirs

    def _place_stale(self) -> None:
        for line in self._stale:
            self._place(line)
        self._stale.clear()

    def _place(self, line: _Line) -> None:
        """Compute *line*'s place in the order."""
        tenant, cap = line.tenant, line.tenant.tenant.spec.max_leases
        waiting = line.waiting
        servable = waiting if cap is None else max(0, min(waiting, cap - tenant.leased))
        self._servable += servable - line.servable
        line.servable = servable
        line.unexpected = waiter = line.first(beyond=line.expected)
        if waiter is None or len(self._lines) == 1 or not tenant.has_room_for(line.expected + 1):
            self._order.drop(line)
            return
        key = tenant.key(self._clock(), more=line.expected)
        self._order.put(line, (key, waiter.since))

    def _drop(self, line: _Line) -> None:
        """Remove *line*, in which nobody waits any more."""
        del self._lines[line.tenant]
        self._stale.pop(line, None)
        self._servable -= line.servable
        line.callers.clear()
        line.gone.clear()
        if line.unexpected is not None:
            line.unexpected = None
            self._order.drop(line)
        line.tenant.wait_ended(line)
