"""A tenant's load on nodes, at one moment and between two moments."""

from dataclasses import dataclass
from typing import Self

from app.domain.histogram import Histogram
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.estimated_load import EstimatedLoad
from app.domain.nodes.wait_estimate import WaitEstimate
from app.domain.pool import PoolMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReading:
    """A tenant's load on nodes at one moment; the difference of two is the load in between.

    Attributes:
        at: when it was read, in monotonic seconds.
        totals: totals of the transactions that ended since the service started.
        busy_seconds, waiting_seconds, open_seconds: connections in a transaction, waiting clients,
            and open connections, integrated over time: each report counts until the next one.
        metrics: the gauges of the latest reports.
        size: connections that it may have, as reported by the nodes.
    """

    at: float
    totals: EntryTotals
    busy_seconds: float
    waiting_seconds: float
    open_seconds: float
    metrics: PoolMetrics
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOnNodes:
    """A tenant on nodes over one interval; waits and holds are estimated.

    Attributes:
        arrivals: requested transactions: those that ended, plus the growth of those under way.
        ended: transactions that ended.
        mean_active, mean_waiting, mean_open: connections in a transaction, clients that waited,
            and open connections, averaged over time.
        wait, hold: seconds that the ended ones waited for a connection, and held it.
    """

    arrivals: int
    ended: int
    mean_active: float
    mean_waiting: float
    mean_open: float
    wait: Histogram
    hold: Histogram

    @classmethod
    def between(cls, before: LoadReading, after: LoadReading) -> Self:
        """The load between two readings, oldest first."""
        seconds = after.at - before.at
        added = after.totals.since(before.totals)
        load = EstimatedLoad.during(seconds, added)
        grown = _under_way(after) - _under_way(before)
        waits = WaitEstimate(load, max(1, after.size)) if load else None
        return cls(
            arrivals=max(0, added.transactions + grown),
            ended=added.transactions,
            mean_active=(after.busy_seconds - before.busy_seconds) / seconds,
            mean_waiting=(after.waiting_seconds - before.waiting_seconds) / seconds,
            mean_open=(after.open_seconds - before.open_seconds) / seconds,
            wait=waits.histogram(added.transactions) if waits else Histogram(),
            hold=load.holds(added.transactions) if load else Histogram(),
        )


def _under_way(reading: LoadReading) -> int:
    return reading.metrics.waiting_requests + reading.metrics.active_connections
