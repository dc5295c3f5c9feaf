"""Counts of one tenant's requests and of its pool's sizes over a whole simulation."""

from dataclasses import dataclass, field

from app.domain.histogram import Histogram
from app.simulator.simulated_pool import SimulatedPool


@dataclass(slots=True, eq=False)
class RequestTally:
    """Counts of a whole simulation; the pool itself only counts from tick to tick.

    Attributes:
        late_seconds: a request that waits longer is late.
        size_seconds: max_size, integrated over time.
        waits: waits of requests that had to wait; a timeout counts with its full wait.
    """

    late_seconds: float
    acquired: int = 0
    released: int = 0
    timeouts: int = 0
    rejected: int = 0
    late: int = 0
    resizes: int = 0
    flips: int = 0
    size_seconds: float = 0.0
    waits: Histogram = field(default_factory=Histogram)
    _direction: int = 0

    @property
    def arrivals(self) -> int:
        """Requests that were served, timed out or were refused."""
        return self.acquired + self.timeouts + self.rejected

    @property
    def late_share(self) -> float:
        """Share of the requests that waited too long or got nothing; 0 if there were none."""
        return self.late / self.arrivals if self.arrivals else 0.0

    def add(self, pool: SimulatedPool, seconds: float, acquire_timeout: float) -> None:
        """Add what *pool* counted in a tick of *seconds*."""
        failed = pool.timeouts + pool.rejected
        self.acquired += pool.acquired
        self.released += len(pool.holds)
        self.timeouts += pool.timeouts
        self.rejected += pool.rejected
        self.size_seconds += pool.max_size * seconds
        self.late += failed
        if failed or pool.waits:
            self.late += sum(wait > self.late_seconds for wait in pool.waits)
            for wait in pool.waits:
                self.waits.record(wait)
            for _ in range(pool.timeouts):
                self.waits.record(acquire_timeout)

    def resized(self, before: int, after: int) -> None:
        """Count a change of max_size, and whether its direction differs from the last one's."""
        direction = 1 if after > before else -1
        self.resizes += 1
        self.flips += direction == -self._direction
        self._direction = direction
