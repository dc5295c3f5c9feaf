"""Who waits for a connection of one pool, and who is next.

Within a tenant first come, first served. Between tenants the one with the smallest share
(leases held ÷ weight) is next, ties to whoever waits longest; a tenant at its own cap is
passed over. A pool of one tenant is therefore a plain queue. Nothing here awaits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heapreplace
from time import monotonic
from typing import TYPE_CHECKING

from app.pools.tenant_state import TenantState

if TYPE_CHECKING:
    from app.pools.connection import PooledConnection

# When deadlines are looked at so late, in seconds, a moment passes before anybody is failed.
_LATE = 0.1
_GRACE = 0.05


class Waiter:
    """One caller, and the future it awaits.

    Attributes:
        opening: what its lease will run first.
        foreseen: whether a connection that is about to come back is expected to be for it.
    """

    __slots__ = ("account", "deadline", "foreseen", "future", "opening", "since")

    def __init__(
        self,
        account: TenantState,
        future: asyncio.Future[PooledConnection],
        *,
        since: float,
        deadline: float,
        opening: str = "",
    ) -> None:
        """Wait on behalf of *account* from *since* until *deadline*, in monotonic seconds."""
        self.account = account
        self.future = future
        self.since = since
        self.deadline = deadline
        self.opening = opening
        self.foreseen = False

    @property
    def handed(self) -> PooledConnection | None:
        """The connection it was given, None if it was not served."""
        future = self.future
        if not future.done() or future.cancelled() or future.exception() is not None:
            return None
        return future.result()

    @property
    def is_counted(self) -> bool:
        """Whether its wait was served or failed; a caller that gave up has yet to say so."""
        return self.future.done() and not self.future.cancelled()

    def fail(self, error: Exception) -> None:
        """Wake the caller with *error*, unless it was served or gave up already."""
        if not self.future.done():
            self.future.set_exception(error)


class WaitQueue:
    """Waiters by tenant, each with a deadline.

    Attributes:
        count: how many callers wait.
    """

    def __init__(self, *, on_overdue: Callable[[Waiter], None]) -> None:
        """Nobody waits. Who still does at the deadline is handed to *on_overdue*, to be failed."""
        self._queues: dict[TenantState, deque[Waiter]] = {}
        self.count = 0
        self._on_overdue = on_overdue
        self._timer: asyncio.TimerHandle | None = None
        self._graced = False

    def add(self, waiter: Waiter) -> None:
        """Put *waiter* behind the others of its tenant."""
        queue = self._queues.get(waiter.account)
        if queue is None:
            queue = self._queues[waiter.account] = deque()
        queue.append(waiter)
        self.count += 1
        waiter.account.waiting += 1
        self._watch(waiter)

    def discard(self, waiter: Waiter) -> None:
        """Take *waiter* out if it is still here."""
        queue = self._queues.get(waiter.account)
        if queue is None or waiter not in queue:
            return
        queue.remove(waiter)
        self._taken(waiter, queue)

    def next(self) -> Waiter | None:
        """The waiter to serve now, still in the queue; None when nobody may be served."""
        while (waiter := self._first()) is not None and waiter.future.done():
            self.pop(waiter)
        return waiter

    def _first(self) -> Waiter | None:
        best: Waiter | None = None
        for account, queue in self._queues.items():
            if not account.can_lease:
                continue
            head = queue[0]
            if best is None or (account.share, head.since) < (best.account.share, best.since):
                best = head
        return best

    def foresee(self, leaving: TenantState) -> Waiter | None:
        """Who will probably be next when *leaving* has given a lease back; None if unknown.

        Nobody is foreseen twice, so that connections which come back together have one each;
        whoever asks unmarks who was `foreseen` when the connection is back.
        """
        leaving.leased -= 1
        try:
            return self._foresee()
        finally:
            leaving.leased += 1

    def _foresee(self) -> Waiter | None:
        best: Waiter | None = None
        least = 0.0
        for account, queue in self._queues.items():
            if not account.can_lease:
                continue
            for place, waiter in enumerate(queue):
                if not (waiter.foreseen or waiter.future.done()):
                    share = account.share_with(place)
                    if best is None or (share, waiter.since) < (least, best.since):
                        best, least = waiter, share
                    break
        if best is not None:
            best.foreseen = True
        return best

    def pop(self, waiter: Waiter) -> None:
        """Take out *waiter*, which `next` has just returned."""
        queue = self._queues[waiter.account]
        queue.popleft()
        self._taken(waiter, queue)

    def remove_tenant(self, account: TenantState) -> list[Waiter]:
        """Take out and return everybody who waits on behalf of *account*."""
        theirs = list(self._queues.pop(account, ()))
        self.count -= len(theirs)
        account.waiting -= len(theirs)
        return theirs

    def clear(self) -> list[Waiter]:
        """Take out and return everybody."""
        everybody = list(self)
        for waiter in everybody:
            waiter.account.waiting -= 1
        self._queues.clear()
        self.count = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return everybody

    def __iter__(self) -> Iterator[Waiter]:
        """Everybody, in no particular order."""
        return (waiter for queue in self._queues.values() for waiter in queue)

    @property
    def servable(self) -> int:
        """How many could be served at once if there were connections enough."""
        return sum(map(self._servable, self._queues))

    def share_after(self, served: int) -> float | None:
        """The share the next waiter's tenant would have, were it served after *served* others.

        None if nobody is left to serve by then.
        """
        order = [
            (account.share, queue[0].since, place, account, 0)
            for place, (account, queue) in enumerate(self._queues.items())
            if account.can_lease
        ]
        heapify(order)
        while order:
            _, _, place, account, taken = order[0]
            taken += 1
            if served <= 0:
                return account.share_with(taken)
            served -= 1
            if taken < self._servable(account):
                since = self._queues[account][taken].since
                heapreplace(order, (account.share_with(taken), since, place, account, taken))
            else:
                heappop(order)
        return None

    def _servable(self, account: TenantState) -> int:
        waiting, cap = len(self._queues[account]), account.tenant.spec.max_leases
        return waiting if cap is None else max(0, min(waiting, cap - account.leased))

    def _taken(self, waiter: Waiter, queue: deque[Waiter]) -> None:
        self.count -= 1
        waiter.account.waiting -= 1
        if not queue:
            del self._queues[waiter.account]

    def _watch(self, waiter: Waiter) -> None:
        """Have one timer for all waiters, at the earliest deadline or before it.

        A timer of its own for each of them would be most of what waiting costs.
        """
        if self._timer is not None:
            if self._timer.when() <= waiter.deadline:
                return
            self._timer.cancel()
        self._timer = waiter.future.get_loop().call_at(waiter.deadline, self._look)

    def _look(self) -> None:
        due = self._timer.when() if self._timer is not None else 0.0
        self._timer = None
        now = monotonic()
        waiting = [waiter for waiter in self if not waiter.future.done()]
        self._graced = not self._graced and now - due > _LATE
        if waiting and self._graced:
            # Our own loop stood still; what came back meanwhile may serve them yet.
            self._timer = waiting[0].future.get_loop().call_at(now + _GRACE, self._look)
            return
        for waiter in waiting:
            if waiter.deadline <= now:
                self._on_overdue(waiter)
        later = [waiter for waiter in waiting if waiter.deadline > now]
        if later:
            self._watch(min(later, key=lambda waiter: waiter.deadline))
