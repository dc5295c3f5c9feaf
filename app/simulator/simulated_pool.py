"""One simulated pool: its connections, its queue and its counts. `simulated_server` decides."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from app.domain.pool import PoolMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPoolConfig:
    """How every simulated pool behaves, in the words and with the defaults of `PoolConfig`.

    Attributes:
        start_size: max_size at the beginning.
        acquire_timeout: seconds a caller waits.
        max_waiting: callers that may wait; the next one is refused.
        idle_timeout: seconds without use after which a connection is closed.
    """

    start_size: int = 5
    acquire_timeout: float = 5.0
    max_waiting: int = 1000
    idle_timeout: float = 300.0


class SimulatedPool:
    """The pool of one tenant."""

    __slots__ = (
        "accrued_until",
        "acquired",
        "connecting",
        "connects",
        "established",
        "holds",
        "idle",
        "idle_seconds",
        "max_size",
        "min_size",
        "open_seconds",
        "rejected",
        "timeouts",
        "waiting",
        "waits",
        "weight",
    )

    def __init__(self, *, min_size: int, max_size: int, weight: int) -> None:
        self.min_size = min_size
        self.max_size = max_size
        self.weight = weight
        self.established = 0
        self.connecting = 0
        # Seconds unused after which a connection closes, if that is less than the rules say.
        self.idle_seconds: float | None = None
        # When each idle connection was last used: the last one is lent first.
        self.idle: list[float] = []
        # When each waiter came, and how long it will hold.
        self.waiting: deque[tuple[float, float]] = deque()
        # Connection-seconds until `accrued_until`, since the beginning.
        self.open_seconds = 0.0
        self.accrued_until = 0.0
        self.connects = 0
        # Since the last tick: waits, ended holds, and requests that were not served.
        self.waits: list[float] = []
        self.holds: list[float] = []
        self.acquired = 0
        self.timeouts = 0
        self.rejected = 0

    @property
    def open(self) -> int:
        """Connections that count against the budget."""
        return self.established + self.connecting

    @property
    def leased(self) -> int:
        """Connections in use."""
        return self.established - len(self.idle)

    @property
    def shortfall(self) -> int:
        """How many connections it would open if the budget had them."""
        wanted = max(len(self.waiting) - self.connecting, self.min_size - self.open)
        return max(0, min(wanted, self.max_size - self.open))

    @property
    def next_share(self) -> float:
        """Leases held ÷ weight once its next waiter is served."""
        return (self.leased + self.connecting + 1) / self.weight

    @property
    def metrics(self) -> PoolMetrics:
        """Its gauges."""
        return PoolMetrics(
            total_connections=self.established,
            idle_connections=len(self.idle),
            active_connections=self.leased,
            waiting_requests=len(self.waiting),
        )

    def accrue(self, now: float) -> None:
        """Add the connection-seconds until *now*: before the number changes, and at the end."""
        self.open_seconds += self.open * (now - self.accrued_until)
        self.accrued_until = now

    def unused_since(self, moment: float) -> int:
        """How many idle connections were last used before *moment*."""
        return bisect_left(self.idle, moment)
