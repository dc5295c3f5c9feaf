"""Everything that is counted and measured for tenants and pools; each counter is declared here.

The recorder, statistics, samples and the advisor use these names, and Prometheus takes its metric
names and help texts from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import add, sub
from typing import Annotated, NamedTuple, get_type_hints

from app.domain.histogram import Histogram


class CounterInfo(NamedTuple):
    """A counter's meaning, and the name of its Prometheus metric if it has one."""

    meaning: str
    metric: str | None = None


class Counters(NamedTuple):
    """Sums since the service started: they only grow, and outlive the pool and the tenant.

    A tuple because thousands are made and added at each poll.
    """

    connections_acquired: Annotated[int, CounterInfo("Leases begun.", "poolkeeper_leases")] = 0
    connections_released: Annotated[int, CounterInfo("Leases ended.")] = 0
    abandoned: Annotated[
        int, CounterInfo("Waits that ended without a lease: timed out, cancelled or failed.")
    ] = 0
    timeouts: Annotated[
        int,
        CounterInfo(
            "Leases that were not obtained before their deadline.", "db_client_connection_timeouts"
        ),
    ] = 0
    rejected: Annotated[
        int,
        CounterInfo("Leases refused: too many callers waited.", "poolkeeper_leases_rejected"),
    ] = 0
    connections_opened: Annotated[
        int, CounterInfo("Connections opened.", "poolkeeper_connections_opened")
    ] = 0
    connections_closed: Annotated[
        int, CounterInfo("Connections closed.", "poolkeeper_connections_closed")
    ] = 0
    connections_lost: Annotated[
        int, CounterInfo("Idle connections that broke.", "poolkeeper_connections_lost")
    ] = 0
    connect_failures: Annotated[
        int, CounterInfo("Connections that could not be opened.", "poolkeeper_connect_failures")
    ] = 0
    health_check_failures: Annotated[
        int, CounterInfo("Connections that failed a test.", "poolkeeper_health_check_failures")
    ] = 0
    wait_seconds: Annotated[
        float,
        CounterInfo("Time that leases waited for a connection.", "poolkeeper_lease_wait_seconds"),
    ] = 0.0
    abandoned_seconds: Annotated[float, CounterInfo("Time that abandoned waits lasted.")] = 0.0
    hold_seconds: Annotated[float, CounterInfo("Time that ended leases lasted.")] = 0.0
    connect_seconds: Annotated[float, CounterInfo("Time spent opening connections.")] = 0.0
    open_seconds: Annotated[float, CounterInfo("Time that closed connections were open.")] = 0.0
    pool_limit_waits: Annotated[
        int,
        CounterInfo(
            "Callers that waited because the maximum number of pools was open.",
            "poolkeeper_pool_limit_waits",
        ),
    ] = 0
    pool_limit_wait_seconds: Annotated[
        float,
        CounterInfo(
            "Time that callers waited for a pool to open.", "poolkeeper_pool_limit_wait_seconds"
        ),
    ] = 0.0

    def __add__(self, other: Counters) -> Counters:  # type: ignore[override]
        return Counters._make(map(add, self, other))

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters._make(map(sub, self, earlier))


COUNTERS: Mapping[str, CounterInfo] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Counters, include_extras=True).items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Histograms of how long callers waited, leases lasted and connects took."""

    wait: Histogram = field(default_factory=Histogram)
    hold: Histogram = field(default_factory=Histogram)
    connect: Histogram = field(default_factory=Histogram)

    def merge(self, other: Durations) -> None:
        """Add everything that *other* counted."""
        self.wait.merge(other.wait)
        self.hold.merge(other.hold)
        self.connect.merge(other.connect)

    def raise_to(self, earlier: Durations) -> None:
        """Raise every count to at least what *earlier* had."""
        self.wait.raise_to(earlier.wait)
        self.hold.raise_to(earlier.hold)
        self.connect.raise_to(earlier.connect)


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterReading:
    """A pool's counters at one moment. Leases and waits that have not ended are included.

    The difference of two readings covers everything in between, bursts included. Divide its seconds
    by the time between the readings to get means.

    Attributes:
        at: when it was read, in monotonic seconds.
        opened_at: when the pool was opened; `wait` and `hold` count from then.
        waiting: callers waiting at that moment.
        busy_seconds: connection-seconds on lease.
        waiting_seconds: how long callers waited for a connection, with or without success.
        open_seconds: connection-seconds open.
    """

    at: float
    opened_at: float
    waiting: int
    counters: Counters
    busy_seconds: float
    waiting_seconds: float
    open_seconds: float
    wait: Histogram
    hold: Histogram

    @property
    def arrivals(self) -> int:
        """Callers that have asked for a connection so far."""
        counters = self.counters
        asked = counters.connections_acquired + counters.abandoned + counters.rejected
        return asked + self.waiting
