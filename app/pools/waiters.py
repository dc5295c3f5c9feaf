"""Who waits for a connection of one pool, and who is next.

Within a tenant first come, first served. Between tenants the smallest share (leases held ÷ weight)
is next, ties go to whoever waits longest; a tenant at its `max_leases` is passed over. A pool of
one tenant is therefore a plain queue. Nothing here awaits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heapreplace
from time import monotonic

from app.pools.connection import PooledConnection
from app.pools.tenant_state import TenantState

# When deadlines are checked so late, in seconds, a moment passes before anybody is failed.
_LATE = 0.1
_GRACE = 0.05


class Waiter:
    """One caller, and the future it awaits.

    Attributes:
        begin_statements: what its lease will run first.
        is_expected: whether a connection that is about to come back is expected to be for it.
    """

    __slots__ = ("begin_statements", "deadline", "future", "is_expected", "since", "tenant_state")

    def __init__(
        self,
        tenant_state: TenantState,
        future: asyncio.Future[PooledConnection],
        *,
        since: float,
        deadline: float,
        begin_statements: str = "",
    ) -> None:
        """Wait on behalf of a tenant from *since* until *deadline*, in monotonic seconds."""
        self.tenant_state = tenant_state
        self.future = future
        self.since = since
        self.deadline = deadline
        self.begin_statements = begin_statements
        self.is_expected = False

    @property
    def handed(self) -> PooledConnection | None:
        """The connection it was given, None if it was not served."""
        future = self.future
        if not future.done() or future.cancelled() or future.exception() is not None:
            return None
        return future.result()

    @property
    def is_counted(self) -> bool:
        """Whether its wait was served or failed; a cancelled caller is counted later."""
        return self.future.done() and not self.future.cancelled()

    def fail(self, error: Exception) -> None:
        """Wake the caller with *error*, unless it was served or gave up already."""
        if not self.future.done():
            self.future.set_exception(error)


class WaitQueue:
    """Waiters by tenant, each with a deadline.

    Attributes:
        count: how many callers wait.
        expected: who will probably get each connection that is about to come back.
    """

    def __init__(self, *, on_overdue: Callable[[Waiter], None]) -> None:
        """Hand those who still wait at their deadline to *on_overdue*, to be failed."""
        self.count = 0
        self.expected: dict[PooledConnection, Waiter] = {}
        self._queues: dict[TenantState, deque[Waiter]] = {}
        self._on_overdue = on_overdue
        self._timer: asyncio.TimerHandle | None = None
        self._graced = False

    def __iter__(self) -> Iterator[Waiter]:
        """Everybody, in no particular order."""
        return (waiter for queue in self._queues.values() for waiter in queue)

    def add(self, waiter: Waiter) -> None:
        """Put *waiter* behind the others of its tenant."""
        queue = self._queues.get(waiter.tenant_state)
        if queue is None:
            queue = self._queues[waiter.tenant_state] = deque()
        queue.append(waiter)
        self.count += 1
        waiter.tenant_state.wait_begun(waiter.since)
        self._watch(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Take *waiter* out if it is still here."""
        queue = self._queues.get(waiter.tenant_state)
        if queue is None or waiter not in queue:
            return
        if queue[0] is waiter:
            queue.popleft()
        else:
            queue.remove(waiter)
        self.count -= 1
        waiter.tenant_state.wait_ended()
        if not queue:
            del self._queues[waiter.tenant_state]

    def remove_tenant(self, tenant: TenantState) -> list[Waiter]:
        """Take out and return everybody who waits on behalf of *tenant*."""
        removed = list(self._queues.pop(tenant, ()))
        self.count -= len(removed)
        tenant.wait_ended(len(removed))
        return removed

    def clear(self) -> list[Waiter]:
        """Take out and return everybody."""
        everybody = list(self)
        for waiter in everybody:
            waiter.tenant_state.wait_ended()
        self._queues.clear()
        self.count = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return everybody

    # -- who is next -------------------------------------------------------------------------

    def next(self) -> Waiter | None:
        """The waiter to serve now, still in the queue; None when no waiter may be served."""
        best: Waiter | None = None
        for tenant, queue in self._queues.items():
            if not tenant.can_lease:
                continue
            head = queue[0]
            if head.future.done():
                # Its caller gave up, and has yet to take it out.
                waiting = [waiter for waiter in queue if not waiter.future.done()]
                if not waiting:
                    continue
                head = waiting[0]
            if best is None or (tenant.share, head.since) < (best.tenant_state.share, best.since):
                best = head
        return best

    def expect(self, connection: PooledConnection, returning: TenantState) -> Waiter | None:
        """Who will probably be next when *returning* has given *connection* back, if anybody.

        Connections that come back together are expected for one waiter each.
        """
        self.unexpect(connection)
        best: Waiter | None = None
        least = 0.0
        for tenant, queue in self._queues.items():
            comes_back = int(tenant is returning)
            if not tenant.has_room_for(1 - comes_back):
                continue
            for place, waiter in enumerate(queue):
                if not (waiter.is_expected or waiter.future.done()):
                    share = tenant.share_with(place - comes_back)
                    if best is None or (share, waiter.since) < (least, best.since):
                        best, least = waiter, share
                    break
        if best is not None:
            best.is_expected = True
            self.expected[connection] = best
        return best

    def unexpect(self, connection: PooledConnection) -> None:
        """*connection* has come back: it is expected no more."""
        waiter = self.expected.pop(connection, None)
        if waiter is not None:
            waiter.is_expected = False

    @property
    def servable(self) -> int:
        """How many could be served at once if there were connections enough."""
        return sum(map(self._servable, self._queues))

    def share_after(self, served: int) -> float | None:
        """The share the next waiter's tenant would have, were it served after *served* others.

        None if no waiter is left by then.
        """
        if len(self._queues) == 1:
            [tenant] = self._queues
            return tenant.share_with(served + 1) if served < self._servable(tenant) else None
        order = [
            (tenant.share, queue[0].since, place, tenant, 0)
            for place, (tenant, queue) in enumerate(self._queues.items())
            if tenant.can_lease
        ]
        heapify(order)
        while order:
            _, _, place, tenant, taken = order[0]
            taken += 1
            if served <= 0:
                return tenant.share_with(taken)
            served -= 1
            if taken < self._servable(tenant):
                since = self._queues[tenant][taken].since
                heapreplace(order, (tenant.share_with(taken), since, place, tenant, taken))
            else:
                heappop(order)
        return None

    def _servable(self, tenant: TenantState) -> int:
        waiting, cap = len(self._queues[tenant]), tenant.tenant.spec.max_leases
        return waiting if cap is None else max(0, min(waiting, cap - tenant.leased))

    # -- deadlines ---------------------------------------------------------------------------

    def _watch(self, waiter: Waiter) -> None:
        """Have one timer for all waiters, at the earliest deadline or before it.

        A timer of its own for each of them would be most of what waiting costs.
        """
        if self._timer is not None:
            if self._timer.when() <= waiter.deadline:
                return
            self._timer.cancel()
        self._timer = waiter.future.get_loop().call_at(waiter.deadline, self._check_deadlines)

    def _check_deadlines(self) -> None:
        due = self._timer.when() if self._timer is not None else 0.0
        self._timer = None
        now = monotonic()
        waiting = [waiter for waiter in self if not waiter.future.done()]
        self._graced = not self._graced and now - due > _LATE
        if waiting and self._graced:
            # Our own loop stood still; what came back meanwhile may serve them yet.
            loop = waiting[0].future.get_loop()
            self._timer = loop.call_at(now + _GRACE, self._check_deadlines)
            return
        for waiter in waiting:
            if waiter.deadline <= now:
                self._on_overdue(waiter)
        later = [waiter for waiter in waiting if waiter.deadline > now]
        if later:
            self._watch(min(later, key=lambda waiter: waiter.deadline))
