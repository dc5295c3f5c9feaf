"""Samples of tenants and pools, and the history made of them.

Which resolution answers a query is decided here; `app/catalog/samples.py` fetches it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

# The subject of the whole service's samples; like a shared pool's it has an @, as no tenant has.
SERVICE = "@"
# After a tenant's id, or SERVICE: what nodes reported, beside what the service's pools measured.
_ON_NODES = "@@"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def on_nodes(subject: str) -> str:
    """The subject of the samples of a tenant, or of all, on nodes."""
    return subject + _ON_NODES


def tenant_of(subject: str) -> str | None:
    """The tenant that samples are of; None: of several."""
    tenant = subject.removesuffix(_ON_NODES)
    return None if "@" in tenant else tenant


class Resolution(StrEnum):
    """What one stored row covers, finest first: a poll, a minute, an hour, a day in UTC."""

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
        """The next finer one; of polls, themselves."""
        return _FINE_FIRST[max(0, _FINE_FIRST.index(self) - 1)]

    @property
    def coarser(self) -> Resolution:
        """The next coarser one; of days, themselves."""
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
    """What one poll measured of a subject, or several polls in a row that measured the same.

    Attributes:
        subject: a tenant's id, a pool's id (`shared@server`), `SERVICE` for all pools together, or
            what `on_nodes` makes of the first or the last.
        at: wall-clock time of the (last) poll, UTC.
        polls: how many polls it covers, all within one minute.
        gap_seconds: mean time between two of them; 0 for a single one.
        total_connections: connections the pool had, 0 for a tenant inside a shared pool.
        acquired, timeouts: growth of the counters since the sample before.
        connection_seconds: how long connections were leased since then, times connections.
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
    """The polls of one time step.

    Gauges are means over the polls, `waiting_requests_max` and the percentiles are maxima,
    `acquired`, `timeouts` and `connection_seconds` are growth. Percentiles of leases are None if
    there was none in the step.
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
    """A subject's history, oldest first, and the resolution it was made from."""

    resolution: Resolution
    points: tuple[HistoryPoint, ...]


ResolutionTimes = Mapping[Resolution, datetime | None]


def choose_resolution(step: timedelta, start: datetime, oldest: ResolutionTimes) -> Resolution:
    """Choose the resolution for a history from *start* in steps of *step*.

    The coarsest one whose whole rows make a step, since it has the fewest rows; a coarser one if
    that does not reach back to *start* and the coarser one reaches further. *oldest* says how far
    each reaches, None for no rows at all.
    """
    chosen = next(each for each in _COARSE_FIRST if not each.step or not step % each.step)
    for coarser in reversed(_COARSE_FIRST[: _COARSE_FIRST.index(chosen)]):
        finer_from, coarser_from = oldest[chosen], oldest[coarser]
        if finer_from is not None and finer_from <= start:
            break
        # A row starts up to its own step before the rows it was made of.
        if coarser_from is not None and (
            finer_from is None or coarser_from + coarser.step <= finer_from
        ):
            chosen = coarser
    return chosen


def split_by_resolution(
    resolution: Resolution, start: datetime, end: datetime, newest: ResolutionTimes
) -> Iterator[tuple[Resolution, datetime, datetime]]:
    """Divide the time from *start* to *end* among *resolution* and the finer ones.

    What is not downsampled yet, after the *newest* row of each, comes from the next finer one; so
    nothing is missing and nothing is counted twice.
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
