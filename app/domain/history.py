"""Polls' measurements of a tenant or pool, what they become with age, and how they are read.

Pure: which resolution answers a question is decided here, `app/catalog/samples.py` fetches it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Resolution(StrEnum):
    """How finely the past is kept, finest first: every poll, minute by minute, hour by hour."""

    RAW = "raw"
    MINUTE = "minute"
    HOUR = "hour"

    @property
    def step(self) -> timedelta:
        """What one row stands for; nothing for a poll, which is of a moment."""
        return _LENGTHS[self]

    def floor(self, moment: datetime) -> datetime:
        """When the minute or hour of *moment* began; a poll's own moment."""
        return moment - (moment - _EPOCH) % self.step if self.step else moment


_LENGTHS = {
    Resolution.RAW: timedelta(),
    Resolution.MINUTE: timedelta(minutes=1),
    Resolution.HOUR: timedelta(hours=1),
}
_COARSE_FIRST = (Resolution.HOUR, Resolution.MINUTE, Resolution.RAW)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSample:
    """What one poll measured of one subject, or several in a row that all measured the same.

    Attributes:
        subject: a tenant's id, or a pool's id (`shared@server`).
        at: wall-clock time of the (last) poll, UTC.
        polls: how many it stands for, all within one minute.
        gap_seconds: time between two of them, on average; 0 for a single one.
        total_connections: connections the pool had, 0 for a tenant inside a shared pool.
        acquired, timeouts: what the counters grew by since the sample before.
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
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    hold_p95_ms: float | None
    connect_p95_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """The polls of one time step, folded into one.

    Gauges are averaged over the polls, `waiting_requests_max` is the most seen at one of them,
    percentiles are at their worst; `acquired` and `timeouts` are what the counters grew by.
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
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    hold_p95_ms: float | None
    connect_p95_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A subject's past, oldest first, and how finely it was still known."""

    resolution: Resolution
    points: tuple[HistoryPoint, ...]


ResolutionTimes = Mapping[Resolution, datetime | None]


def choose_resolution(step: timedelta, start: datetime, oldest: ResolutionTimes) -> Resolution:
    """Choose what a past from *start* in steps of *step* is told from.

    The coarsest of which whole rows make a step, since it has the fewest; but a coarser one
    where that does not reach back to *start* and the coarser reaches further. *oldest* says
    how far each reaches, None for no rows at all.
    """
    chosen = next(each for each in _COARSE_FIRST if not each.step or not step % each.step)
    for coarser in reversed(_COARSE_FIRST[: _COARSE_FIRST.index(chosen)]):
        mine, theirs = oldest[chosen], oldest[coarser]
        if mine is not None and mine <= start:
            break
        # A row begins up to its own length before what it was made of.
        if theirs is not None and (mine is None or theirs + coarser.step <= mine):
            chosen = coarser
    return chosen


def split_by_resolution(
    resolution: Resolution, start: datetime, end: datetime, newest: ResolutionTimes
) -> Iterator[tuple[Resolution, datetime, datetime]]:
    """Divide the time from *start* to *end* among *resolution* and the finer ones.

    What is not rolled up yet, after the *newest* row of each, is told from the next finer; so
    nothing is missing and nothing is told twice.
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
