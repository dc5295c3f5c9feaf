"""How stored samples are folded, and one subject's past told from up to three tables of them.

Statements only; which table answers what is decided by `app/domain/sample.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    FromClause,
    Integer,
    Label,
    Select,
    cast,
    func,
    literal,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.catalog.tables import samples, samples_by_hour, samples_by_minute
from app.domain.history import (
    History,
    HistoryPoint,
    Resolution,
    ResolutionTimes,
    choose_resolution,
    split_by_resolution,
)

SAMPLES = {
    Resolution.RAW: samples,
    Resolution.MINUTE: samples_by_minute,
    Resolution.HOUR: samples_by_hour,
}
_GAUGES = ("total_connections", "active_connections", "idle_connections", "waiting_requests")
_COUNTERS = ("acquired", "timeouts")
_PERCENTILES = ("wait_p95_ms", "wait_p99_ms", "hold_p95_ms", "connect_p95_ms")
_ORIGIN: ColumnElement[datetime] = literal_column("timestamptz '2000-01-01 00:00:00Z'")
# A sample of many polls holds those of one minute, and is stored under the last one's moment.
_LONGEST_RUN = timedelta(minutes=1)


def downsample_columns(rows: FromClause) -> list[Label[Any]]:
    """Fold *rows* of any resolution: gauges weighted by polls, growth summed, the rest at worst."""
    polls = func.sum(rows.c.polls)
    return [
        cast(polls, Integer).label("polls"),
        *(
            (func.sum(cast(rows.c[name], Double) * rows.c.polls) / polls).label(name)
            for name in _GAUGES
        ),
        func.max(_most_waiting(rows)).label("waiting_requests_max"),
        *(cast(func.sum(rows.c[name]), BigInteger).label(name) for name in _COUNTERS),
        *(func.max(rows.c[name]).label(name) for name in _PERCENTILES),
    ]


async def query_history(
    connection: AsyncConnection, subject: str, *, start: datetime, end: datetime, step: timedelta
) -> History:
    """One subject's past in steps, from the resolution that fits and, for its end, finer ones."""
    oldest, newest = await _time_ranges(connection, subject, end)
    resolution = choose_resolution(step, start, oldest)
    rows = union_all(
        *(_rows(*part, subject) for part in split_by_resolution(resolution, start, end, newest))
    ).cte("rows")
    at = func.date_bin(step, rows.c.at, _ORIGIN).label("at")
    found = await connection.execute(
        select(at, *downsample_columns(rows)).group_by(at).order_by(at)
    )
    names = tuple(found.keys())
    # Rows by name would cost more than the query.
    points = (_point(**dict(zip(names, row, strict=True))) for row in found)
    return History(resolution=resolution, points=tuple(points))


async def _time_ranges(
    connection: AsyncConnection, subject: str, end: datetime
) -> tuple[ResolutionTimes, ResolutionTimes]:
    """The subject's oldest sample in each resolution, and its newest before *end*."""
    looks = []
    for table in SAMPLES.values():
        mine = table.c.subject == subject
        looks.append(select(func.min(table.c.at)).where(mine).scalar_subquery())
        newest = select(func.max(table.c.at)).where(mine, table.c.at < end)
        looks.append(newest.scalar_subquery())
    found = tuple((await connection.execute(select(*looks))).one())
    return dict(zip(SAMPLES, found[::2], strict=True)), dict(zip(SAMPLES, found[1::2], strict=True))


def _rows(resolution: Resolution, start: datetime, end: datetime, subject: str) -> Select[Any]:
    """One subject's rows of one table, those of polls taken apart into the single polls."""
    table = SAMPLES[resolution]
    mine = table.c.subject == subject
    values = [table.c[name] for name in (*_GAUGES, *_COUNTERS, *_PERCENTILES)]
    most = _most_waiting(table).label("waiting_requests_max")
    if resolution is not Resolution.RAW:
        within = (table.c.at >= start, table.c.at < end)
        return select(table.c.at, table.c.polls, most, *values).where(mine, *within)
    numbers = func.generate_series(0, table.c.polls - 1).table_valued("number").render_derived()
    at = table.c.at - func.make_interval(0, 0, 0, 0, 0, 0, numbers.c.number * table.c.gap_seconds)
    return (
        select(at.label("at"), literal(1).label("polls"), most, *values)
        .select_from(table.join(numbers, true()))
        .where(mine, table.c.at >= start, table.c.at < end + _LONGEST_RUN)
        .where(at >= start, at < end)
    )


def _most_waiting(rows: FromClause) -> ColumnElement[int]:
    """The most waiting at one poll; a poll's own are all that a row of polls knows."""
    known: ColumnElement[int] | None = rows.c.get("waiting_requests_max")
    return rows.c.waiting_requests if known is None else known


def _point(polls: int, **rest: Any) -> HistoryPoint:
    return HistoryPoint(samples=polls, **rest)
