"""A period of the past, and the stored rows that add up to it.

Sums over a period are built from whole rows: days in its middle, hours, minutes and polls towards
its ends. An end inside a row moves to the row's start, so adjacent periods never overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.history import Resolution, ResolutionTimes

# Longer periods begin and end with whole hours, or whole days, so that few rows make them up.
_LONGEST_IN_MINUTES = timedelta(days=1)
_LONGEST_IN_HOURS = timedelta(days=31)

PeriodPart = tuple[Resolution, datetime, datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The time from *start* until just before *end*, and its rows; none if nothing is stored."""

    start: datetime
    end: datetime
    parts: tuple[PeriodPart, ...]


def stored_period(
    start: datetime, end: datetime, oldest: ResolutionTimes, newest: ResolutionTimes
) -> Period:
    """Find what is stored for the time from *start* to *end*.

    Both ends move back to a whole minute. They move back to a whole hour if minutes are gone or the
    period is longer than a day, and to a whole day if hours are gone or it is longer than 31 days.
    A start before the history moves forward to the history's start.

    Args:
        oldest, newest: time of the first and last row of each resolution; None without rows. A
            resolution is complete up to its newest row, and the next finer resolution holds the
            same time until its rows are deleted.
    """
    reach = _reach(oldest)
    if Resolution.DAY not in reach:
        return Period(start=end, end=end, parts=())
    begin = _begin(reach)
    length = end - start
    finest = Resolution.MINUTE
    if length > _LONGEST_IN_MINUTES:
        finest = Resolution.HOUR if length <= _LONGEST_IN_HOURS else Resolution.DAY

    def floor(time: datetime) -> datetime:
        resolution = finest
        while resolution is not Resolution.DAY:
            first = reach.get(resolution)
            if first is not None and (
                first <= resolution.coarser.floor(time) or first == resolution.floor(begin)
            ):
                break
            resolution = resolution.coarser
        return resolution.floor(time)

    first = max(floor(start), begin)
    last = max(floor(end), first)
    parts = _parts(Resolution.DAY, first, last, oldest, newest)
    return Period(start=first, end=last, parts=tuple(parts))


def _reach(oldest: ResolutionTimes) -> dict[Resolution, datetime]:
    """The time from which each resolution has intervals, as its own rows or as finer ones."""
    reach: dict[Resolution, datetime] = {}
    found = []
    for resolution in Resolution:
        if (first := oldest[resolution]) is not None:
            found.append(first)
        if found and resolution is not Resolution.RAW:
            reach[resolution] = min(map(resolution.floor, found))
    return reach


def _begin(reach: dict[Resolution, datetime]) -> datetime:
    """When the history begins, as precisely as is known."""
    begin = reach[Resolution.DAY]
    for finer in (Resolution.HOUR, Resolution.MINUTE):
        if finer in reach and finer.coarser.floor(reach[finer]) == begin:
            begin = reach[finer]
    return begin


def _parts(
    resolution: Resolution,
    start: datetime,
    end: datetime,
    oldest: ResolutionTimes,
    newest: ResolutionTimes,
) -> Iterator[PeriodPart]:
    """Rows of *resolution* where whole ones fit and exist; finer rows before and after them."""
    if start >= end:
        return
    if resolution is Resolution.RAW:
        yield resolution, start, end
        return
    finer, first = resolution.finer, resolution.floor(start)
    if first < start:
        first += resolution.step
    until = first
    if (row := oldest[resolution]) is not None:
        first = max(first, row)
    if (row := newest[resolution]) is not None:
        until = min(resolution.floor(end), row + resolution.step)
    if first >= until:
        yield from _parts(finer, start, end, oldest, newest)
        return
    yield from _parts(finer, start, first, oldest, newest)
    yield resolution, first, until
    yield from _parts(finer, until, end, oldest, newest)
