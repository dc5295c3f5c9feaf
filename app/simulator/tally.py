"""Counts of one tenant's requests and of its pool's sizes over a whole simulation."""

from __future__ import annotations

from app.domain.histogram import Histogram
from app.simulator.simulated_pool import SimulatedPool


class RequestTally:
    """Counts of a whole simulation; the pool itself counts only from tick to tick."""

    __slots__ = (
        "_direction",
        "_late_seconds",
        "acquired",
        "flips",
        "late",
        "rejected",
        "released",
        "resizes",
        "size_seconds",
        "timeouts",
        "waits",
    )

    def __init__(self, late_seconds: float) -> None:
        """A request that waits over *late_seconds* is late."""
        self._late_seconds = late_seconds
        self._direction = 0
        self.acquired = self.released = self.timeouts = self.rejected = 0
        self.late = 0
        self.resizes = self.flips = 0
        # max_size, integrated over time.
        self.size_seconds = 0.0
        # Of requests that had to wait; a timeout counts with its full wait.
        self.waits = Histogram()

    @property
    def arrivals(self) -> int:
        """Requests that were served, timed out or were refused."""
        return self.acquired + self.timeouts + self.rejected

    @property
    def late_share(self) -> float:
        """Share of the requests that waited too long or got nothing; 0 if there were none."""
        return self.late / self.arrivals if self.arrivals else 0.0

    def add(self, pool: SimulatedPool, seconds: float, acquire_timeout: float) -> None:
        """Add the tick of *seconds* that *pool* has counted."""
        failed = pool.timeouts + pool.rejected
        self.acquired += pool.acquired
        self.released += len(pool.holds)
        self.timeouts += pool.timeouts
        self.rejected += pool.rejected
        self.size_seconds += pool.max_size * seconds
        self.late += failed
        if failed or pool.waits:
            self.late += sum(wait > self._late_seconds for wait in pool.waits)
            for wait in pool.waits:
                self.waits.record(wait)
            for _ in range(pool.timeouts):
                self.waits.record(acquire_timeout)

    def resized(self, before: int, after: int) -> None:
        """Count a change of max_size, and whether it went the other way than the last one."""
        direction = 1 if after > before else -1
        self.resizes += 1
        self.flips += direction == -self._direction
        self._direction = direction
