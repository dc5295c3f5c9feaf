"""The deadlines of those who wait, with one timer for all of them.

A timer of its own for each caller would be most of what waiting costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.pools.waiters import Waiter

# When deadlines are checked so late, in seconds, a moment passes before anybody is failed.
_LATE = 0.1
_GRACE = 0.05
# More deadlines than these are looked through for those of callers that no longer wait.
_FEW = 100


class WaitDeadlines:
    """The deadlines of callers; those who are served or gone are forgotten later."""

    def __init__(
        self, on_overdue: Callable[[Waiter], None], clock: Callable[[], float] = monotonic
    ) -> None:
        """Hand those who still wait at their deadline to *on_overdue*, to be failed."""
        self._on_overdue = on_overdue
        self._clock = clock
        # The number keeps waiters from being compared.
        self._heap: list[tuple[float, int, Waiter]] = []
        self._number = 0
        self._many = _FEW
        # What uvloop returns for a time that has passed knows no time.
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        self._graced = False

    def add(self, waiter: Waiter) -> None:
        """Watch *waiter*'s deadline."""
        self._number += 1
        heappush(self._heap, (waiter.deadline, self._number, waiter))
        if len(self._heap) > self._many:
            self._heap = [entry for entry in self._heap if not entry[2].future.done()]
            heapify(self._heap)
            self._many = max(_FEW, 2 * len(self._heap))
        if self._timer is None or waiter.deadline < self._due:
            self._set_timer(waiter.future.get_loop(), waiter.deadline)

    def clear(self) -> None:
        """Nobody waits any more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = loop.call_at(at, self._check), at

    def _check(self) -> None:
        self._timer = None
        now = self._clock()
        self._graced = not self._graced and now - self._due > _LATE
        while (waiter := self._earliest()) is not None:
            if self._graced:
                # Our own loop stood still; what came back meanwhile may serve them yet.
                self._set_timer(waiter.future.get_loop(), now + _GRACE)
                return
            if waiter.deadline > now:
                self._set_timer(waiter.future.get_loop(), waiter.deadline)
                return
            heappop(self._heap)
            self._on_overdue(waiter)

    def _earliest(self) -> Waiter | None:
        """Who still waits, and has the earliest deadline."""
        heap = self._heap
        while heap and heap[0][2].future.done():
            heappop(heap)
        return heap[0][2] if heap else None
