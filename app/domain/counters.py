"""What went through a pool: counts that only grow, and exact integrals over time.

Two looks at a pool tell everything about the time between them, however short the bursts in it
were. Values only: `app.pools` looks.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.histogram import Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterReading:
    """One look at a pool, or what `between` found between two.

    Divided by the seconds between two looks, the integrals are means over time.

    Attributes:
        at: when it was, in monotonic seconds.
        since: when the pool was opened, from when on `wait` and `hold` count.
        waiting: callers waiting at that moment.
        acquired: leases begun.
        released: leases ended.
        abandoned: waits that ended without a lease: in time-out, cancellation or failure.
        timeouts: those of them that ended at their deadline.
        rejected: callers refused at once because too many waited.
        opened: connections opened.
        connect_failures: connections that could not be opened.
        connect_seconds: how long those took that were opened, summed.
        busy_seconds: how long connections were leased, ongoing leases included; connections
            times seconds.
        waiting_seconds: how long callers waited, ongoing waits included, whatever they end in.
        open_seconds: how long connections were open, those still open included.
        wait: how long those waited who got a connection.
        hold: how long leases lasted that have ended.
    """

    at: float
    since: float
    waiting: int
    acquired: int
    released: int
    abandoned: int
    timeouts: int
    rejected: int
    opened: int
    connect_failures: int
    connect_seconds: float
    busy_seconds: float
    waiting_seconds: float
    open_seconds: float
    wait: Histogram
    hold: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowBetween:
    """What happened in an interval; the attributes are those of `PoolFlow`, and these.

    Attributes:
        seconds: how long the interval was, above 0.
        arrivals: callers that asked for a connection in it.
    """

    at: float
    seconds: float
    arrivals: int
    acquired: int
    released: int
    abandoned: int
    timeouts: int
    rejected: int
    opened: int
    connect_failures: int
    connect_seconds: float
    busy_seconds: float
    waiting_seconds: float
    open_seconds: float
    wait: Histogram
    hold: Histogram

    @property
    def mean_active(self) -> float:
        """Connections leased, averaged over the interval."""
        return self.busy_seconds / self.seconds

    @property
    def mean_waiting(self) -> float:
        """Callers waiting, averaged over the interval."""
        return self.waiting_seconds / self.seconds

    @property
    def mean_open(self) -> float:
        """Connections open, averaged over the interval."""
        return self.open_seconds / self.seconds

    @property
    def mean_connect(self) -> float | None:
        """Seconds that opening a connection took; None if none was opened."""
        return self.connect_seconds / self.opened if self.opened else None


def between(before: CounterReading, after: CounterReading) -> FlowBetween:
    """What happened to a pool between two looks, *before* and, later, *after*.

    If it was closed and opened anew meanwhile, `wait` and `hold` count from then on only.
    """
    # Named one by one: ten thousand pools are looked at in each tick.
    acquired = after.acquired - before.acquired
    abandoned = after.abandoned - before.abandoned
    rejected = after.rejected - before.rejected
    same = before.since == after.since
    return FlowBetween(
        at=after.at,
        seconds=after.at - before.at,
        arrivals=acquired + abandoned + rejected + after.waiting - before.waiting,
        acquired=acquired,
        released=after.released - before.released,
        abandoned=abandoned,
        timeouts=after.timeouts - before.timeouts,
        rejected=rejected,
        opened=after.opened - before.opened,
        connect_failures=after.connect_failures - before.connect_failures,
        connect_seconds=after.connect_seconds - before.connect_seconds,
        busy_seconds=after.busy_seconds - before.busy_seconds,
        waiting_seconds=after.waiting_seconds - before.waiting_seconds,
        open_seconds=after.open_seconds - before.open_seconds,
        wait=after.wait.without(before.wait) if same else after.wait,
        hold=after.hold.without(before.hold) if same else after.hold,
    )
