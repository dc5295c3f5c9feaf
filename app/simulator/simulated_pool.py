"""A simulated pool: its connections, its queue and its counts. `simulated_server` decides."""

from collections import deque
from dataclasses import dataclass, field
from math import exp

from app.domain.pool import PoolMetrics
from app.domain.time_sharing import MEMORY, RUNNING

# The weight of the newest hold in the mean, as in real pools.
_NEWEST = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPoolConfig:
    """The configuration of all simulated pools, with the names and defaults of `PoolConfig`.

    Attributes:
        start_size: max_size at the start.
        acquire_timeout: seconds a caller waits.
        max_waiting: the most waiting callers; the next one is refused.
        idle_timeout: seconds without use after which a connection is closed.
    """

    start_size: int = 5
    acquire_timeout: float = 5.0
    max_waiting: int = 1000
    idle_timeout: float = 300.0


@dataclass(slots=True, kw_only=True, eq=False)
class SimulatedPool:
    min_size: int
    max_size: int
    weight: int
    connecting: int = 0
    # From this age on, idle connections beyond this number close; None: as the rules say.
    idle_seconds: float | None = None
    warm_size: int = 0
    # When each connection was opened, and when each idle one was last used; the last one is lent
    # first.
    opened: deque[float] = field(default_factory=deque)
    established: int = 0
    idle: list[float] = field(default_factory=list)
    idle_found_at: float = 0.0
    # When each waiter came, and how long it will hold.
    waiting: deque[tuple[float, float]] = field(default_factory=deque)
    # Connection-seconds since the start, until `accrued_until`.
    open_seconds: float = 0.0
    accrued_until: float = 0.0
    connects: int = 0
    # Mean seconds of a lease, and until the next caller; None when unknown.
    hold: float | None = None
    return_seconds: float | None = None
    _use: float = 0.0
    _noted_at: float = 0.0
    # Since the last tick: waits, ended holds, and requests that were not served.
    _noted: int = 0
    waits: list[float] = field(default_factory=list)
    holds: list[float] = field(default_factory=list)
    acquired: int = 0
    timeouts: int = 0
    rejected: int = 0

    def begin_tick(self, seconds: float) -> None:
        """Reset the counts after a tick of *seconds*."""
        asked = self.acquired + self.timeouts + self.rejected
        self.return_seconds = seconds / asked if asked else None
        self.waits, self.holds, self._noted = [], [], 0
        self.acquired = self.timeouts = self.rejected = 0

    def keep_warm(self, warm_size: int, surplus_age: float | None) -> None:
        """Keep *warm_size* connections open although idle, and others for *surplus_age* seconds."""
        self.warm_size, self.idle_seconds = warm_size, surplus_age

    @property
    def open(self) -> int:
        """Connections that count against the budget."""
        return self.established + self.connecting

    @property
    def leased(self) -> int:
        return self.established - len(self.idle)

    def use(self, now: float) -> float:
        """The recent mean number of leased connections ÷ weight; a running lease counts a bit more.

        Leases are counted when they end.
        """
        self.note(now)
        return (self._use + RUNNING * (self.leased + self.connecting)) / self.weight

    def note(self, now: float) -> None:
        """Count the ended leases in its use and in its mean hold."""
        if now > self._noted_at:
            self._use *= exp((self._noted_at - now) / MEMORY)
            self._noted_at = now
        count = len(self.holds) - self._noted
        if count:
            held = sum(self.holds[self._noted :])
            self._noted = len(self.holds)
            self._use += held / MEMORY
            mean = held / count
            if self.hold is None:
                self.hold = mean
            self.hold += (mean - self.hold) * (1 - (1 - _NEWEST) ** count)

    @property
    def metrics(self) -> PoolMetrics:
        return PoolMetrics(
            total_connections=self.established,
            idle_connections=len(self.idle),
            active_connections=self.leased,
            waiting_requests=len(self.waiting),
        )

    def accrue(self, now: float) -> None:
        """Add the connection-seconds until *now*.

        Call it before the number changes, and at the end.
        """
        self.open_seconds += self.open * (now - self.accrued_until)
        self.accrued_until = now
