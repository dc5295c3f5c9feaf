"""The deadlines of waiting callers, with one timer for all.

With one timer for each caller, timers would be most of the cost of waiting.
"""

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from time import monotonic

from app.pools.scheduling.waiter import Waiter

# If deadlines are checked this late, in seconds, nobody is failed before another moment has passed.
_LATE = 0.1
_GRACE = 0.05
# With more deadlines than this, those of callers that no longer wait are removed.
_FEW = 100


class WaitDeadlines:
    """The deadlines of callers; those of served or gone callers are dropped later."""

    def __init__(
        self, on_overdue: Callable[[Waiter], None], clock: Callable[[], float] = monotonic
    ) -> None:
        """Call *on_overdue* with the callers that still wait at their deadlines, to fail them."""
        self._on_overdue = on_overdue
        self._clock = clock
        # The number keeps waiters from being compared.
        self._heap: list[tuple[float, int, Waiter]] = []
        self._number = 0
        self._many = _FEW
        # uvloop returns no time for a timer that is due.
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
        """Forget all: nobody waits any more."""
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
                # Our own loop stood still; connections that came back in the meantime may still
                # serve them.
                self._set_timer(waiter.future.get_loop(), now + _GRACE)
                return
            if waiter.deadline > now:
                self._set_timer(waiter.future.get_loop(), waiter.deadline)
                return
            heappop(self._heap)
            self._on_overdue(waiter)

    def _earliest(self) -> Waiter | None:
        """The waiter with the earliest deadline."""
        heap = self._heap
        while heap and heap[0][2].future.done():
            heappop(heap)
        return heap[0][2] if heap else None
