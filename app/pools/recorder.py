"""Counts and measures what happens to one tenant's leases, or to one pool.

Lives as long as the service, so counters survive the eviction of the pool. It is told what
happened; it observes nothing itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.domain.histogram import Histogram, RollingHistogram
from app.domain.pool import Percentiles, PoolMetrics, PoolStats

_FRACTIONS = (0.50, 0.95, 0.99)


class Recorder:
    """Counters since the service started, and histograms of the last *window* seconds."""

    __slots__ = (
        "_connect",
        "_hold",
        "_last_activity",
        "_wait",
        "acquired",
        "closed",
        "connect_failures",
        "created_at",
        "health_check_failures",
        "lost",
        "opened",
        "rejected",
        "released",
        "timeouts",
        "total_wait",
        "window",
    )

    def __init__(self, window: float = 300.0) -> None:
        """Count from zero; percentiles will cover *window* seconds."""
        self.window = window
        self.created_at: datetime | None = None
        self.acquired = self.released = self.timeouts = self.rejected = 0
        self.opened = self.closed = self.lost = 0
        self.connect_failures = self.health_check_failures = 0
        self.total_wait = 0.0
        self._last_activity: float | None = None
        self._wait = RollingHistogram(window)
        self._hold = RollingHistogram(window)
        self._connect = RollingHistogram(window)

    def pool_created(self) -> None:
        """Note the wall-clock time at which a pool was (last) created."""
        self.created_at = datetime.now(UTC)

    def lease_begun(self, wait: float, now: float) -> None:
        """A caller got a connection after *wait* seconds."""
        self.acquired += 1
        self.total_wait += wait
        self._wait.record(wait, now)
        self._last_activity = now

    def lease_ended(self, hold: float, now: float) -> None:
        """A caller gave a connection back after *hold* seconds."""
        self.released += 1
        self._hold.record(hold, now)
        self._last_activity = now

    def connected(self, took: float, now: float) -> None:
        """A connection was opened in *took* seconds."""
        self.opened += 1
        self._connect.record(took, now)

    def was_used(self, since: float) -> bool:
        """Whether a lease began or ended after the monotonic time *since*."""
        return self._last_activity is not None and self._last_activity > since

    def stats(self, metrics: PoolMetrics, now: float) -> PoolStats:
        """Everything counted so far, with the *metrics* of the moment, as of *now*."""
        wait = self._wait.merged(now)
        return PoolStats(
            connections_acquired=self.acquired,
            connections_released=self.released,
            active_connections=metrics.active_connections,
            idle_connections=metrics.idle_connections,
            waiting_requests=metrics.waiting_requests,
            total_wait_time_ms=self.total_wait * 1000,
            max_wait_time_ms=wait.longest * 1000,
            timeouts=self.timeouts,
            rejected=self.rejected,
            health_check_failures=self.health_check_failures,
            connections_opened=self.opened,
            connections_closed=self.closed,
            connections_lost=self.lost,
            connect_failures=self.connect_failures,
            created_at=self.created_at,
            last_activity=self._activity_time(now),
            window_seconds=self.window,
            wait=_percentiles(wait),
            hold=_percentiles(self._hold.merged(now)),
            connect=_percentiles(self._connect.merged(now)),
        )

    def _activity_time(self, now: float) -> datetime | None:
        # Reckoned back from the present, so that a jump of the wall clock cannot falsify it.
        if self._last_activity is None:
            return None
        return datetime.now(UTC) - timedelta(seconds=now - self._last_activity)


def _percentiles(histogram: Histogram) -> Percentiles:
    p50, p95, p99 = (
        None if value is None else value * 1000 for value in histogram.quantiles(_FRACTIONS)
    )
    return Percentiles(p50_ms=p50, p95_ms=p95, p99_ms=p99)
