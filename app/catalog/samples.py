"""What the poller measured: written in bulk, folded into time steps, deleted when old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Double,
    case,
    cast,
    delete,
    func,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert

from app.catalog.database import Database
from app.catalog.tables import samples
from app.domain.sample import HistoryPoint, PoolSample

_GAUGES = ("total_connections", "active_connections", "idle_connections", "waiting_requests")
_COUNTERS = ("acquired", "timeouts")
_PERCENTILES = ("wait_p95_ms", "wait_p99_ms", "hold_p95_ms", "connect_p95_ms")


class Samples:
    """Stored samples. Every method may raise CatalogUnavailable."""

    def __init__(self, database: Database) -> None:
        """Keep them in *database*."""
        self._database = database

    async def add(self, measured: Sequence[PoolSample]) -> None:
        """Store one poll's samples; those of a subject and moment stored already are skipped."""
        if not measured:
            return
        statement = insert(samples).on_conflict_do_nothing()
        async with self._database.transaction() as connection:
            await connection.execute(statement, [_values(sample) for sample in measured])

    async def history(
        self, subject: str, *, start: datetime, end: datetime, step: float
    ) -> tuple[HistoryPoint, ...]:
        """Fold the samples from *start* up to, not including, *end* into steps, oldest first.

        Steps begin at whole multiples of *step* seconds, so that asking again a little later
        moves no point; the first may begin before *start*. A step without a sample is left out.
        A counter's growth is told from the sample before, however old; without one it is 0.
        """
        seen = _with_sample_before(subject, start, end)
        origin = text("timestamptz '2000-01-01 00:00:00Z'")
        begins = func.date_bin(timedelta(seconds=step), seen.c.at, origin).label("at")
        statement = (
            select(
                begins,
                func.count().label("samples"),
                *(cast(func.avg(seen.c[name]), Double).label(name) for name in _GAUGES),
                *(
                    cast(func.sum(_growth(seen, name)), BigInteger).label(name)
                    for name in _COUNTERS
                ),
                *(func.max(seen.c[name]).label(name) for name in _PERCENTILES),
            )
            .where(seen.c.at >= start)
            .group_by(begins)
            .order_by(begins)
        )
        async with self._database.transaction() as connection:
            rows = await connection.execute(statement)
            return tuple(HistoryPoint(**row) for row in rows.mappings())

    async def delete_before(self, moment: datetime, *, limit: int = 50_000) -> int:
        """Delete up to *limit* samples older than *moment*; return how many.

        As many as the limit means that more may be left: what piled up is worked off bit by
        bit, each within the deadline.
        """
        key = tuple_(samples.c.subject, samples.c.at)
        old = select(samples.c.subject, samples.c.at).where(samples.c.at < moment).limit(limit)
        async with self._database.transaction() as connection:
            return (await connection.execute(delete(samples).where(key.in_(old)))).rowcount


def _with_sample_before(subject: str, start: datetime, end: datetime) -> CTE:
    """Select the subject's samples and the last one before them, with the counters before each."""
    mine = samples.c.subject == subject
    before = select(func.max(samples.c.at)).where(mine, samples.c.at < start).scalar_subquery()
    previous = (
        func.lag(samples.c[name]).over(order_by=samples.c.at).label(f"{name}_before")
        for name in _COUNTERS
    )
    return (
        select(samples, *previous)
        .where(mine, samples.c.at >= func.coalesce(before, start), samples.c.at < end)
        .cte("seen")
    )


def _growth(seen: CTE, name: str) -> ColumnElement[int]:
    """Say what a counter grew by: nothing is known of the first, one that fell began at zero."""
    now, before = seen.c[name], seen.c[f"{name}_before"]
    return case((before.is_(None), 0), (now < before, now), else_=now - before)


def _values(sample: PoolSample) -> Mapping[str, Any]:
    stats = sample.stats
    return {
        "subject": sample.subject,
        "at": sample.at,
        "total_connections": sample.total_connections,
        "active_connections": stats.active_connections,
        "idle_connections": stats.idle_connections,
        "waiting_requests": stats.waiting_requests,
        "acquired": stats.connections_acquired,
        "timeouts": stats.timeouts,
        "wait_p95_ms": stats.wait.p95_ms,
        "wait_p99_ms": stats.wait.p99_ms,
        "hold_p95_ms": stats.hold.p95_ms,
        "connect_p95_ms": stats.connect.p95_ms,
    }
