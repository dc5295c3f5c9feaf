"""Counts and measures the leases of one tenant, or one pool.

It lives as long as the service, so counters survive the eviction of the pool.
"""

from datetime import UTC, datetime, timedelta
from operator import attrgetter

from app.domain.counters import CounterReading, Counters, Durations
from app.domain.histogram import Histogram, RollingHistogram
from app.domain.pool import Percentiles, PoolMetrics, PoolStats

_FRACTIONS = (0.50, 0.95, 0.99)
_counters_of = attrgetter(*Counters._fields)
_NOTHING = Counters()


class Recorder:
    """Counters since the service started, and histograms of the last *window* seconds.

    The counters are separate attributes, because every lease updates them.
    """

    __slots__ = (
        *Counters._fields,
        "_abandoned_waits",
        "_connect",
        "_hold",
        "_last_activity",
        "_opened_at",
        "_taken",
        "_wait",
        "created_at",
        "window",
    )

    def __init__(self, window: float = 300.0, flush_to: Durations | None = None) -> None:
        """Start at zero; ended slices of the histograms are added to *flush_to*."""
        self.window = window
        self.created_at: datetime | None = None
        self.connections_acquired = self.connections_released = 0
        self.abandoned = self.timeouts = self.rejected = 0
        self.connections_opened = self.connections_closed = self.connections_lost = 0
        self.connect_failures = self.health_check_failures = 0
        self.wait_seconds = self.abandoned_seconds = self.hold_seconds = 0.0
        self.connect_seconds = self.open_seconds = 0.0
        self.pool_limit_waits, self.pool_limit_wait_seconds = 0, 0.0
        self._last_activity: float | None = None
        self._opened_at = 0.0
        self._taken = _NOTHING
        self._wait = RollingHistogram(window, flush_to=flush_to.wait if flush_to else None)
        # Made with the first: most pools have none.
        self._abandoned_waits: RollingHistogram | None = None
        self._hold = RollingHistogram(window, flush_to=flush_to.hold if flush_to else None)
        self._connect = RollingHistogram(window, flush_to=flush_to.connect if flush_to else None)

    @property
    def counters(self) -> Counters:
        return Counters._make(_counters_of(self))

    def take_growth(self) -> Counters | None:
        """The growth of the counters since the last call; None if nothing was counted."""
        values, taken = _counters_of(self), self._taken
        if values == taken:
            return None
        self._taken = Counters._make(values)
        return self._taken - taken

    def pool_opened(self, now: float) -> None:
        """Start the histograms of the readings of a pool that was opened."""
        self.created_at = datetime.now(UTC)
        self._opened_at = now
        self._wait.start_total()
        self._hold.start_total()

    def pool_closed(self, opened_at: float) -> None:
        """Note that the pool opened at *opened_at* was closed; a newer one keeps its histograms."""
        if self._opened_at == opened_at:
            self._wait.stop_total()
            self._hold.stop_total()

    def record_acquire(self, wait: float, now: float) -> None:
        """Count a caller that got a connection after *wait* seconds."""
        self.connections_acquired += 1
        self.wait_seconds += wait
        self._wait.record(wait, now)
        self._last_activity = now

    def record_release(self, hold: float, now: float) -> None:
        """Count a connection that came back after *hold* seconds."""
        self.connections_released += 1
        self.hold_seconds += hold
        self._hold.record(hold, now)
        self._last_activity = now

    def record_abandoned(self, wait: float, now: float) -> None:
        """Count a caller that stopped waiting after *wait* seconds, without a connection."""
        self.abandoned += 1
        self.abandoned_seconds += wait
        if self._abandoned_waits is None:
            self._abandoned_waits = RollingHistogram(self.window)
        self._abandoned_waits.record(wait, now)

    def record_timeout(self) -> None:
        """Count a caller that reached its deadline; it is counted as abandoned, too."""
        self.timeouts += 1

    def record_slot_wait(self, seconds: float) -> None:
        """Count a wait that included *seconds* for a slot; it is counted as a wait, too."""
        self.pool_limit_waits += 1
        self.pool_limit_wait_seconds += seconds

    def record_rejected(self) -> None:
        self.rejected += 1

    def record_connect(self, seconds: float, now: float) -> None:
        """Count a connection that took *seconds* to open."""
        self.connections_opened += 1
        self.connect_seconds += seconds
        self._connect.record(seconds, now)

    def record_close(self, open_seconds: float) -> None:
        """Count a closed connection that had been open for *open_seconds*."""
        self.connections_closed += 1
        self.open_seconds += open_seconds

    def record_lost(self) -> None:
        """Count an idle connection that broke by itself."""
        self.connections_lost += 1

    def record_connect_failure(self) -> None:
        self.connect_failures += 1

    def record_failed_check(self) -> None:
        self.health_check_failures += 1

    def add_unflushed_to(self, durations: Durations) -> None:
        """Add to *durations* what is not in `flush_to` yet."""
        self._wait.add_unflushed_to(durations.wait)
        self._hold.add_unflushed_to(durations.hold)
        self._connect.add_unflushed_to(durations.connect)

    def flush(self) -> None:
        """Add everything to `flush_to`; nothing more will be recorded."""
        self._wait.flush()
        self._hold.flush()
        self._connect.flush()

    def used_since(self, since: float) -> bool:
        """Whether a lease began or ended after the monotonic time *since*."""
        return self._last_activity is not None and self._last_activity > since

    def late_share(self, patience: float, now: float) -> float:
        """Share (0..1) of callers in the window that waited longer than *patience* seconds."""
        wait = self._waits(now)
        return wait.count_above(patience) / max(1, wait.count)

    def reading(
        self,
        now: float,
        *,
        waiting: int,
        waiting_seconds: float,
        leased_seconds: float,
        open_seconds: float,
    ) -> CounterReading:
        """The pool's reading at *now*; the rest is what its waits and connections add until now."""
        counters = self.counters
        ended_waits = counters.wait_seconds + counters.abandoned_seconds
        ended_waits -= counters.pool_limit_wait_seconds
        return CounterReading(
            at=now,
            opened_at=self._opened_at,
            waiting=waiting,
            counters=counters,
            busy_seconds=counters.hold_seconds + leased_seconds,
            waiting_seconds=ended_waits + waiting_seconds,
            open_seconds=counters.open_seconds + open_seconds,
            wait=self._wait.total(),
            hold=self._hold.total(),
        )

    def stats(self, metrics: PoolMetrics, now: float) -> PoolStats:
        """Everything counted so far, with the gauges *metrics*, at *now*."""
        wait = self._waits(now)
        return PoolStats(
            counters=self.counters,
            metrics=metrics,
            max_wait_time_ms=wait.longest * 1000,
            created_at=self.created_at,
            last_activity=self._activity_time(now),
            window_seconds=self.window,
            wait=_percentiles(wait),
            hold=_percentiles(self._hold.merged(now)),
            connect=_percentiles(self._connect.merged(now)),
        )

    def _waits(self, now: float) -> Histogram:
        """All waits in the window, whether or not they ended with a connection."""
        waits = self._wait.merged(now)
        if self._abandoned_waits is not None:
            waits.merge(self._abandoned_waits.merged(now))
        return waits

    def _activity_time(self, now: float) -> datetime | None:
        # Computed from the monotonic clock, so that a jump of the wall clock cannot falsify it.
        if self._last_activity is None:
            return None
        return datetime.now(UTC) - timedelta(seconds=now - self._last_activity)


def _percentiles(histogram: Histogram) -> Percentiles:
    p50, p95, p99 = (
        None if value is None else value * 1000 for value in histogram.quantiles(_FRACTIONS)
    )
    return Percentiles(p50_ms=p50, p95_ms=p95, p99_ms=p99)
