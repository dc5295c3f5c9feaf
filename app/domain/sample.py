"""One poll's measurement of one tenant or pool, and many of them folded into a time step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.domain.pool import PoolStats


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSample:
    """The statistics of one subject at one poll.

    Attributes:
        subject: a tenant's id, or a pool's id (`shared@server`).
        at: wall-clock time of the poll, UTC.
        total_connections: connections the pool had, 0 for a tenant inside a shared pool.
    """

    subject: str
    at: datetime
    total_connections: int
    stats: PoolStats


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """Samples of one time step: gauges averaged, counters as growth, percentiles at their worst.

    `acquired` and `timeouts` are what the counters grew by since the step before; a counter
    that fell (the service was restarted) counts from zero.
    """

    at: datetime
    samples: int
    total_connections: float
    active_connections: float
    idle_connections: float
    waiting_requests: float
    acquired: int
    timeouts: int
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    hold_p95_ms: float | None
    connect_p95_ms: float | None
