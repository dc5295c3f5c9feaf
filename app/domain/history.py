"""Samples of tenants and pools, and the history built from them.

This decides which resolution answers a query; `app/catalog/samples.py` fetches it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

# The subject of the samples of the whole service. It has an @, as shared pools do and tenants
# never.
SERVICE = "@"
# A suffix of a tenant's id or of SERVICE: these samples come from the reports of nodes.
_ON_NODES = "@@"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def on_nodes(subject: str) -> str:
    """The subject of samples from nodes: of one tenant, or of all."""
    return subject + _ON_NODES


def tenant_of(subject: str) -> str | None:
    """The tenant of the samples; None if they are of several tenants."""
    tenant = subject.removesuffix(_ON_NODES)
    return None if "@" in tenant else tenant


class Resolution(StrEnum):
    """The time covered by one stored row, finest first: a poll, a minute, an hour, a day in UTC."""

    RAW = "raw"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def step(self) -> timedelta:
        """How long one row covers; zero for a poll."""
        return _STEPS[self]

    @property
    def finer(self) -> Resolution:
        """The next finer resolution; for polls, polls."""
        return _FINE_FIRST[max(0, _FINE_FIRST.index(self) - 1)]

    @property
    def coarser(self) -> Resolution:
        """The next coarser resolution; for days, days."""
        return _COARSE_FIRST[max(0, _COARSE_FIRST.index(self) - 1)]

    def floor(self, time: datetime) -> datetime:
        """The start of the interval that contains *time*; for a poll, *time* itself."""
        return time - (time - _EPOCH) % self.step if self.step else time


_STEPS = {
    Resolution.RAW: timedelta(),
    Resolution.MINUTE: timedelta(minutes=1),
    Resolution.HOUR: timedelta(hours=1),
    Resolution.DAY: timedelta(days=1),
}
_FINE_FIRST = tuple(Resolution)
_COARSE_FIRST = _FINE_FIRST[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSample:
    """What one poll measured, or several polls in a row with the same values.

    Attributes:
        subject: a tenant's id, a pool's id (`shared@server`), or `SERVICE` for all pools together;
            with the suffix of `on_nodes` for samples of a tenant or of all tenants on nodes.
        at: wall-clock time of the (last) poll, UTC.
        polls: number of polls, all within one minute.
        gap_seconds: mean time between two polls; 0 for a single one.
        total_connections: connections the pool had, 0 for a tenant inside a shared pool.
        acquired, timeouts: growth of the counters since the sample before.
        connection_seconds: connection-seconds on lease since then.
    """

    subject: str
    at: datetime
    polls: int = 1
    gap_seconds: float = 0.0
    total_connections: int
    active_connections: int
    idle_connections: int
    waiting_requests: int
    acquired: int
    timeouts: int
    connection_seconds: float
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    hold_p95_ms: float | None
    connect_p95_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """One time step of a history.

    Gauges are means over the polls, `waiting_requests_max` and the percentiles are maxima,
    `acquired`, `timeouts` and `connection_seconds` are growth. Percentiles of lease times are None
    if no lease ended in the step.
    """

    at: datetime
    samples: int
    total_connections: float
    active_connections: float
    idle_connections: float
    waiting_requests: float
    waiting_requests_max: int
    acquired: int
    timeouts: int
    connection_seconds: float
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    hold_p95_ms: float | None
    connect_p95_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The history of one subject, oldest first, and the resolution it was built from."""

    resolution: Resolution
    points: tuple[HistoryPoint, ...]


ResolutionTimes = Mapping[Resolution, datetime | None]


def choose_resolution(step: timedelta, start: datetime, oldest: ResolutionTimes) -> Resolution:
    """Choose the resolution for a history from *start* in steps of *step*.

    It is the coarsest one that divides a step into whole rows, since it has the fewest rows. If
    that does not reach back to *start* and a coarser one reaches further, take the coarser one.
    *oldest* is the time of each resolution's first row, None without rows.
    """
    chosen = next(each for each in _COARSE_FIRST if not each.step or not step % each.step)
    for coarser in reversed(_COARSE_FIRST[: _COARSE_FIRST.index(chosen)]):
        finer_from, coarser_from = oldest[chosen], oldest[coarser]
        if finer_from is not None and finer_from <= start:
            break
        # A row starts up to one step before the first of the rows it was built from.
        if coarser_from is not None and (
            finer_from is None or coarser_from + coarser.step <= finer_from
        ):
            chosen = coarser
    return chosen


def split_by_resolution(
    resolution: Resolution, start: datetime, end: datetime, newest: ResolutionTimes
) -> Iterator[tuple[Resolution, datetime, datetime]]:
    """Divide the time from *start* to *end* among *resolution* and the finer ones.

    After the *newest* row of a resolution, where nothing is downsampled yet, the next finer one
    takes over. So nothing is missing and nothing is counted twice.
    """
    for each in _COARSE_FIRST[_COARSE_FIRST.index(resolution) :]:
        last = newest[each]
        if each is Resolution.RAW:
            yield each, start, end
        elif last is not None and last + each.step > start:
            yield each, each.floor(start), min(end, last + each.step)
            start = last + each.step
        if start >= end:
            return
