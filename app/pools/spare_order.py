"""The pools with idle connections, ordered by when others may get one."""

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from app.pools.scheduled_pool import ScheduledPool

# With at most this many outdated entries, a clean-up is not worth it.
_FEW = 16


class SpareOrder:
    """The earliest times at which others may get a connection of each pool; the first is at hand.

    These times are lower bounds: a pool may have used its connections since. A caller that needs
    the true first one postpones or drops the first entry until it is true. Every operation takes
    O(log n).
    """

    def __init__(self) -> None:
        self._at: dict[ScheduledPool, float] = {}
        self._heap: list[tuple[float, int, ScheduledPool]] = []
        self._number = count()

    @property
    def first(self) -> tuple[ScheduledPool, float] | None:
        """The first pool and its time, in monotonic seconds."""
        return (self._heap[0][2], self._heap[0][0]) if self._heap else None

    def add(self, pool: ScheduledPool, at: float) -> None:
        """Add *pool* with the time *at*, unless it is already here."""
        if pool not in self._at:
            self._put(pool, at)

    def bring_forward(self, pool: ScheduledPool, at: float) -> None:
        """Let others get a connection of *pool* from the time *at*, if not earlier."""
        if at < self._at.get(pool, inf):
            self._put(pool, at)

    def postpone(self, pool: ScheduledPool, at: float) -> None:
        """Let others get a connection of *pool* no sooner than at the time *at*."""
        self._put(pool, at)

    def drop(self, pool: ScheduledPool) -> None:
        """Remove *pool*, which has no idle connection."""
        if self._at.pop(pool, None) is not None:
            self._clean()

    def _put(self, pool: ScheduledPool, at: float) -> None:
        self._at[pool] = at
        heappush(self._heap, (at, next(self._number), pool))
        self._clean()

    def _clean(self) -> None:
        heap = self._heap
        if len(heap) > 2 * len(self._at) + _FEW:
            heap[:] = [entry for entry in heap if self._at.get(entry[2]) == entry[0]]
            heapify(heap)
        while heap and self._at.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
