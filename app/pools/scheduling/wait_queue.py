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
from time import monotonic

from app.pools.scheduling.ranking import Ranking
from app.pools.scheduling.wait_deadlines import WaitDeadlines
from app.pools.scheduling.waiter import Waiter
from app.pools.tenant_state import TenantState


@dataclass(slots=True, eq=False, repr=False)
class _Line:
    """The callers of one tenant.

    Attributes:
        stale: the lines of its queue whose place must be computed again.
        callers: its waiting callers, in the order in which they came.
        gone: those of them that gave up but have not removed themselves yet.
        servable: how many of them could be served at once.
    """

    tenant: TenantState
    stale: dict[_Line, None]
    callers: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)
    gone: set[Waiter] = field(default_factory=set)
    servable: int = 0

    @property
    def waiting(self) -> int:
        return len(self.callers) + len(self.gone)

    def note_change(self) -> None:
        """Compute its place again before the next use."""
        self.stale[self] = None

    def first(self) -> Waiter | None:
        """The first caller that still waits."""
        first = next(iter(self.callers), None)
        if first is None or not first.future.done():
            return first
        # A caller that gave up is skipped only once.
        self.gone.update(waiter for waiter in self.callers if waiter.future.done())
        for waiter in self.gone:
            self.callers.pop(waiter, None)
        self.note_change()
        return next(iter(self.callers), None)


class WaitQueue:
    """Waiters by tenant, each with a deadline.

    Attributes:
        count: number of waiting callers.
    """

    def __init__(
        self, *, on_overdue: Callable[[Waiter], None], clock: Callable[[], float] = monotonic
    ) -> None:
        """Call *on_overdue* with the callers that still wait at their deadlines, to fail them."""
        self.count = 0
        self._clock = clock
        self._lines: dict[TenantState, _Line] = {}
        self._stale: dict[_Line, None] = {}
        # Lines whose tenant may have another lease, by its key, and when its first caller began to
        # wait.
        self._order: Ranking[_Line, tuple[float, ...]] = Ranking()
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

    def next(self) -> Waiter | None:
        """The waiter to serve now, still in the queue; None if no waiter may be served."""
        if not self.count:
            return None
        if len(self._lines) == 1:
            [only] = self._lines.values()
            return only.first() if only.tenant.can_lease else None
        self._place_stale()
        now = self._clock()
        while (first := self._order.first) is not None:
            line, (known_key, since) = first
            waiter = line.first()
            if waiter is None or waiter.since != since:
                self._place(line)
                continue
            key = line.tenant.key(now) if line.tenant.leased else known_key
            if key <= known_key:
                return waiter
            self._order.put(line, (key, since))
        return None

    @property
    def servable(self) -> int:
        """How many waiters could be served at once if there were enough connections."""
        self._place_stale()
        return self._servable

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
        waiter = line.first()
        if waiter is None or len(self._lines) == 1 or not tenant.can_lease:
            self._order.drop(line)
        else:
            self._order.put(line, (tenant.key(self._clock()), waiter.since))

    def _drop(self, line: _Line) -> None:
        """Remove *line*, in which nobody waits any more."""
        del self._lines[line.tenant]
        self._stale.pop(line, None)
        self._servable -= line.servable
        line.callers.clear()
        line.gone.clear()
        self._order.drop(line)
        line.tenant.wait_ended(line)
