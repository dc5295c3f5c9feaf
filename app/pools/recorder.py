"""Counts and measures what happens to one tenant's leases, or to one pool.

Lives as long as the service, so counters survive the eviction of the pool. It is told what
happened; it observes nothing itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.domain.counters import CounterReading
from app.domain.histogram import Histogram, RollingHistogram
from app.domain.pool import Percentiles, PoolMetrics, PoolStats
from app.pools.durations import Durations

_FRACTIONS = (0.50, 0.95, 0.99)


class Recorder:
    """Counters since the service started, and histograms of the last *window* seconds."""

    __slots__ = (
        "_connect",
        "_hold",
        "_last_activity",
        "_since",
        "_wait",
        "abandoned",
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
        "total_connect",
        "total_hold",
        "total_open",
        "total_wait",
        "vain_wait",
        "window",
    )

    def __init__(self, window: float = 300.0, ended: Durations | None = None) -> None:
        """Count from zero; percentiles will cover *window* seconds.

        Durations go into *ended* some time after they were measured, see `add_unended_to`.
        """
        self.window = window
        self.created_at: datetime | None = None
        self.acquired = self.released = self.timeouts = self.rejected = self.abandoned = 0
        self.opened = self.closed = self.lost = 0
        self.connect_failures = self.health_check_failures = 0
        # Seconds; of leases, of waits that ended without one, of connections that are closed, and
        # of opening them.
        self.total_wait = self.total_hold = self.vain_wait = self.total_open = 0.0
        self.total_connect = 0.0
        self._last_activity: float | None = None
        self._since = 0.0
        self._wait = RollingHistogram(window, flush_to=ended.wait if ended else None)
        self._hold = RollingHistogram(window, flush_to=ended.hold if ended else None)
        self._connect = RollingHistogram(window, flush_to=ended.connect if ended else None)

    def pool_opened(self, since: float) -> None:
        """Note the wall-clock time at which a pool was (last) created; its flow begins.

        *since* is the same moment in monotonic seconds.
        """
        self.created_at = datetime.now(UTC)
        self._since = since
        self._wait.start_total()
        self._hold.start_total()

    def pool_closed(self, since: float) -> None:
        """Forget what only the flow of the pool created then needs, unless there is a new one."""
        if self._since == since:
            self._wait.stop_total()
            self._hold.stop_total()

    def record_acquire(self, wait: float, now: float) -> None:
        """A caller got a connection after *wait* seconds."""
        self.acquired += 1
        self.total_wait += wait
        self._wait.record(wait, now)
        self._last_activity = now

    def record_release(self, hold: float, now: float) -> None:
        """A caller gave a connection back after *hold* seconds."""
        self.released += 1
        self.total_hold += hold
        self._hold.record(hold, now)
        self._last_activity = now

    def record_abandoned(self, wait: float) -> None:
        """A caller waited *wait* seconds in vain."""
        self.abandoned += 1
        self.vain_wait += wait

    def record_connect(self, took: float, now: float) -> None:
        """A connection was opened in *took* seconds."""
        self.opened += 1
        self.total_connect += took
        self._connect.record(took, now)

    @property
    def version(self) -> int:
        """A number that grows with everything that is counted."""
        return (
            self.acquired
            + self.released
            + self.abandoned
            + self.timeouts
            + self.rejected
            + self.opened
            + self.closed
            + self.lost
            + self.connect_failures
            + self.health_check_failures
        )

    def add_unflushed_to(self, durations: Durations) -> None:
        """Add what was measured lately, and is not in `ended` yet."""
        self._wait.add_unflushed_to(durations.wait)
        self._hold.add_unflushed_to(durations.hold)
        self._connect.add_unflushed_to(durations.connect)

    def flush(self) -> None:
        """Leave nothing that is not in `ended`: no more will be measured."""
        self._wait.flush()
        self._hold.flush()
        self._connect.flush()

    def used_since(self, since: float) -> bool:
        """Whether a lease began or ended after the monotonic time *since*."""
        return self._last_activity is not None and self._last_activity > since

    def late_share(self, patience: float, now: float) -> float:
        """Share (0..1) of those who waited longer than *patience* seconds, in the window."""
        wait = self._wait.merged(now)
        return wait.count_above(patience) / max(1, wait.count)

    def flow(
        self,
        now: float,
        *,
        waiting: int,
        waiting_seconds: float,
        busy_seconds: float,
        open_seconds: float,
    ) -> CounterReading:
        """What went through the pool until *now*; the rest is what has not ended yet."""
        return CounterReading(
            at=now,
            since=self._since,
            waiting=waiting,
            acquired=self.acquired,
            released=self.released,
            abandoned=self.abandoned,
            timeouts=self.timeouts,
            rejected=self.rejected,
            opened=self.opened,
            connect_failures=self.connect_failures,
            connect_seconds=self.total_connect,
            busy_seconds=self.total_hold + busy_seconds,
            waiting_seconds=self.total_wait + self.vain_wait + waiting_seconds,
            open_seconds=self.total_open + open_seconds,
            wait=self._wait.total(),
            hold=self._hold.total(),
        )

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
