"""Stored samples: written in bulk, downsampled, read as a history, deleted.

There are four tables, one for each resolution; SQL alone builds each one from the next finer one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
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
    any_,
    cast,
    delete,
    func,
    literal,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.catalog.database import Store
from app.catalog.tables import samples, samples_by_day, samples_by_hour, samples_by_minute
from app.domain.history import (
    History,
    HistoryPoint,
    PoolSample,
    Resolution,
    ResolutionTimes,
    choose_resolution,
    split_by_resolution,
)

SAMPLE_TABLES = {
    Resolution.RAW: samples,
    Resolution.MINUTE: samples_by_minute,
    Resolution.HOUR: samples_by_hour,
    Resolution.DAY: samples_by_day,
}
_GAUGES = ("total_connections", "active_connections", "idle_connections", "waiting_requests")
_COUNTERS = ("acquired", "timeouts")
_OF_LEASES = ("wait_p95_ms", "wait_p99_ms", "hold_p95_ms")
_PERCENTILES = (*_OF_LEASES, "connect_p95_ms")
_ORIGIN: ColumnElement[datetime] = literal_column("timestamptz '2000-01-01 00:00:00Z'")
_CTID: ColumnElement[Any] = literal_column("ctid")
# The event loop has its turn after this many points.
_POINTS = 500
# A sample of many polls covers at most one minute, and is stored with the time of the last poll.
_LONGEST_RUN = timedelta(minutes=1)
# If the clock is wrong, one deletion removes no more than this.
_MAX_DELETED = timedelta(minutes=2)


class Samples(Store):
    async def add(self, measured: Sequence[PoolSample]) -> None:
        """Store samples; skip those whose subject and time are already stored."""
        if not measured:
            return
        statement = insert(samples).on_conflict_do_nothing()
        async with self._database.transaction() as connection:
            await connection.execute(statement, [asdict(sample) for sample in measured])

    async def downsample(
        self, resolution: Resolution, until: datetime, *, again_from: datetime | None = None
    ) -> datetime:
        """Downsample the next interval of *resolution* before *until* that has samples.

        This is one transaction. Repeat it until it returns *until*; repeating it after an
        interruption counts nothing twice.

        *until* is the start of an interval, and everything before it must be stored. From
        *again_from* on, intervals that were downsampled already may have further samples. Returns
        the time before which everything is downsampled now.
        """
        source, target = SAMPLE_TABLES[resolution.finer], SAMPLE_TABLES[resolution]
        last = select(func.max(target.c.at)).where(target.c.at < until)
        first = select(func.min(source.c.at)).where(source.c.at < until)
        async with self._database.transaction() as connection:
            done = (await connection.execute(last)).scalar_one()
            if done is not None:
                undone = done + resolution.step
                if again_from is not None:
                    undone = min(undone, resolution.floor(again_from))
                first = first.where(source.c.at >= undone)
            found = (await connection.execute(first)).scalar_one()
            if found is None:
                return until
            start = resolution.floor(found)
            end = start + resolution.step
            rows = (
                select(source.c.subject, literal(start).label("at"), *_downsampled(source))
                .where(source.c.at >= start, source.c.at < end)
                .group_by(source.c.subject)
            )
            names = rows.selected_columns.keys()
            statement = insert(target).from_select(names, rows)
            known = target.primary_key.columns.keys()
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=known,
                    set_={name: statement.excluded[name] for name in names if name not in known},
                    # Some of the samples that the row was made of may be deleted by now.
                    where=target.c.polls < statement.excluded.polls,
                )
            )
            return end

    async def query_history(
        self, subject: str, *, start: datetime, end: datetime, step: float
    ) -> History:
        """Read the samples from *start* to *end* (excluded) in steps of *step* seconds, in order.

        Steps start at whole multiples of *step*, so later queries have the same points; the first
        step may start before *start*. Steps without a poll are left out.
        """
        async with self._database.reading() as connection:
            oldest, newest = await _time_ranges(connection, subject, end)
            length = timedelta(seconds=step)
            resolution = choose_resolution(length, start, oldest)
            parts = split_by_resolution(resolution, start, end, newest)
            rows = union_all(*(_rows(*part, subject) for part in parts)).cte("rows")
            at = func.date_bin(length, rows.c.at, _ORIGIN).label("at")
            found = await connection.execute(
                select(at, *_downsampled(rows)).group_by(at).order_by(at)
            )
        names = tuple(found.keys())
        # Rows with names would cost more than the query.
        points: list[HistoryPoint] = []
        for part in found.partitions(_POINTS):
            points += [_point(**dict(zip(names, row, strict=True))) for row in part]
            await asyncio.sleep(0)
        return History(resolution=resolution, points=tuple(points))

    async def delete_before(
        self, resolution: Resolution, time: datetime, *, limit: int = 50_000
    ) -> int:
        """Delete up to *limit* of the oldest samples, all older than *time*; return how many.

        It deletes no more than the oldest two minutes, or the oldest hour: if the clock is wrong,
        little is lost before it is right again.
        """
        table = SAMPLE_TABLES[resolution]
        oldest = select(func.min(table.c.at)).scalar_subquery()
        old = (
            select(_CTID)
            .select_from(table)
            .where(table.c.at < time, table.c.at < oldest + _MAX_DELETED)
            .order_by(table.c.at)
            .limit(limit)
        )
        statement = delete(table).where(any_(func.array(old.scalar_subquery())) == _CTID)
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).rowcount


def _downsampled(rows: FromClause) -> list[Label[Any]]:
    """Aggregate columns of *rows*: gauges weighted by polls, growth summed, maxima of the rest."""
    polls = func.sum(rows.c.polls)
    return [
        cast(polls, Integer).label("polls"),
        *(
            (func.sum(cast(rows.c[name], Double) * rows.c.polls) / polls).label(name)
            for name in _GAUGES
        ),
        func.max(_max_waiting(rows)).label("waiting_requests_max"),
        *(cast(func.sum(rows.c[name]), BigInteger).label(name) for name in _COUNTERS),
        func.sum(rows.c.connection_seconds).label("connection_seconds"),
        *(func.max(rows.c[name]).label(name) for name in _PERCENTILES),
    ]


async def _time_ranges(
    connection: AsyncConnection, subject: str, end: datetime
) -> tuple[ResolutionTimes, ResolutionTimes]:
    """The subject's oldest sample in each resolution, and its newest before *end*."""
    columns = []
    for table in SAMPLE_TABLES.values():
        own = table.c.subject == subject
        columns.append(select(func.min(table.c.at)).where(own).scalar_subquery())
        newest = select(func.max(table.c.at)).where(own, table.c.at < end)
        columns.append(newest.scalar_subquery())
    found = tuple((await connection.execute(select(*columns))).one())
    return (
        dict(zip(SAMPLE_TABLES, found[::2], strict=True)),
        dict(zip(SAMPLE_TABLES, found[1::2], strict=True)),
    )


def _rows(resolution: Resolution, start: datetime, end: datetime, subject: str) -> Select[Any]:
    """A subject's rows in one table; a raw sample of several polls becomes one row per poll."""
    table = SAMPLE_TABLES[resolution]
    own = table.c.subject == subject
    values = [table.c[name] for name in (*_GAUGES, *_COUNTERS, *_PERCENTILES)]
    most = _max_waiting(table).label("waiting_requests_max")
    if resolution is not Resolution.RAW:
        within = (table.c.at >= start, table.c.at < end)
        seconds = table.c.connection_seconds
        return select(table.c.at, table.c.polls, most, *values, seconds).where(own, *within)
    numbers = func.generate_series(0, table.c.polls - 1).table_valued("number").render_derived()
    at = table.c.at - func.make_interval(0, 0, 0, 0, 0, 0, numbers.c.number * table.c.gap_seconds)
    a_poll = (table.c.connection_seconds / table.c.polls).label("connection_seconds")
    return (
        select(at.label("at"), literal(1).label("polls"), most, *values, a_poll)
        .select_from(table.join(numbers, true()))
        .where(own, table.c.at >= start, table.c.at < end + _LONGEST_RUN)
        .where(at >= start, at < end)
    )


def _max_waiting(rows: FromClause) -> ColumnElement[int]:
    """The most waiting callers at one poll; raw samples have no column for it."""
    known: ColumnElement[int] | None = rows.c.get("waiting_requests_max")
    return rows.c.waiting_requests if known is None else known


def _point(polls: int, **rest: Any) -> HistoryPoint:
    if not (rest["acquired"] or rest["timeouts"] or rest["connection_seconds"]):
        # The percentiles' window had only leases from before this step.
        rest |= dict.fromkeys(_OF_LEASES)
    return HistoryPoint(samples=polls, **rest)
