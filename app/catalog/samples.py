"""What the poller measured: written in bulk, rolled up into minutes and hours, deleted when old.

Three tables, one for each resolution; each is made from the next finer one by SQL alone, and
read together by `history.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, any_, delete, func, literal, literal_column, select
from sqlalchemy.dialects.postgresql import insert

from app.catalog.database import Database
from app.catalog.history import SAMPLES, downsample_columns, query_history
from app.domain.history import History, PoolSample, Resolution

_FINER = {Resolution.MINUTE: Resolution.RAW, Resolution.HOUR: Resolution.MINUTE}
_CTID: ColumnElement[Any] = literal_column("ctid")
# Wherever the clock jumps to, one deletion takes no more than so much of the past with it.
_MOST_AT_ONCE = timedelta(minutes=2)


class Samples:
    """Stored samples. Every method may raise CatalogUnavailable."""

    def __init__(self, database: Database) -> None:
        """Keep them in *database*."""
        self._database = database

    async def add(self, measured: Sequence[PoolSample]) -> None:
        """Store samples; those of a subject and moment stored already are skipped."""
        if not measured:
            return
        statement = insert(SAMPLES[Resolution.RAW]).on_conflict_do_nothing()
        async with self._database.transaction() as connection:
            await connection.execute(statement, [asdict(sample) for sample in measured])

    async def downsample(self, resolution: Resolution, until: datetime) -> datetime:
        """Fold the next minute or hour before *until* in which there is something.

        One transaction's work; whoever repeats it until it answers *until* has done all of it.
        Repeating it after an interruption folds nothing twice.

        Args:
            resolution: what to make: minutes of polls, or hours of minutes.
            until: when a minute or hour began, before which everything is stored.

        Returns:
            The moment before which everything is folded now.
        """
        source, target = SAMPLES[_FINER[resolution]], SAMPLES[resolution]
        last = select(func.max(target.c.at)).where(target.c.at < until)
        first = select(func.min(source.c.at)).where(source.c.at < until)
        async with self._database.transaction() as connection:
            done = (await connection.execute(last)).scalar_one()
            if done is not None:
                first = first.where(source.c.at >= done + resolution.step)
            found = (await connection.execute(first)).scalar_one()
            if found is None:
                return until
            start = resolution.floor(found)
            end = start + resolution.step
            columns = downsample_columns(source)
            rows = (
                select(source.c.subject, literal(start).label("at"), *columns)
                .where(source.c.at >= start, source.c.at < end)
                .group_by(source.c.subject)
            )
            await connection.execute(
                insert(target)
                .from_select(rows.selected_columns.keys(), rows)
                .on_conflict_do_nothing()
            )
            return end

    async def query_history(
        self, subject: str, *, start: datetime, end: datetime, step: float
    ) -> History:
        """Fold the samples from *start* up to, not including, *end* into steps, oldest first.

        Steps begin at whole multiples of *step* seconds, so that asking again a little later
        moves no point; the first may begin before *start*. A step without a poll is left out.
        """
        async with self._database.transaction() as connection:
            return await query_history(
                connection, subject, start=start, end=end, step=timedelta(seconds=step)
            )

    async def delete_before(
        self, resolution: Resolution, moment: datetime, *, limit: int = 50_000
    ) -> int:
        """Delete up to *limit* of the oldest samples, all older than *moment*; return how many.

        No more than the oldest two minutes go, or the oldest hour: should the clock be wrong,
        little is lost until it is right again. What piled up is worked off bit by bit.
        """
        table = SAMPLES[resolution]
        oldest = select(func.min(table.c.at)).scalar_subquery()
        old = (
            select(_CTID)
            .select_from(table)
            .where(table.c.at < moment, table.c.at < oldest + _MOST_AT_ONCE)
            .order_by(table.c.at)
            .limit(limit)
        )
        statement = delete(table).where(any_(func.array(old.scalar_subquery())) == _CTID)
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).rowcount
