"""Desired state of pools; each change is stored with its audit event."""

from dataclasses import asdict, fields
from functools import partial

from sqlalchemy import RowMapping, select

from app.catalog.database import Database, Store
from app.catalog.recommendations import record_applied
from app.catalog.tables import pools
from app.catalog.versioned_table import VersionedTable
from app.domain.audit import AuditEvent
from app.domain.desired_state import DesiredPool, Pause
from app.domain.pool import PoolSize
from app.domain.recommendation import Recommendation

AppliedRecommendation = tuple[Recommendation, AuditEvent]
"""A recommendation that is closed as applied, and its event."""


class DesiredPools(Store):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._rows = VersionedTable(database, pools)

    async def load(self) -> tuple[DesiredPool, ...]:
        """Load all of them, by id."""
        statement = select(pools).order_by(pools.c.pool_id)
        return await self._database.load(statement, _desired_pool)

    @property
    def uncertain(self) -> tuple[str, ...]:
        """Pools that a write may have changed whose response was lost."""
        return self._rows.uncertain

    async def read(self, pool_id: str) -> DesiredPool | None:
        """A pool's desired state, which is not uncertain any more; None if there is none."""
        row = await self._rows.read(pool_id)
        return None if row is None else _desired_pool(row)

    async def save(
        self,
        pool_id: str,
        size: PoolSize,
        *,
        pause: Pause | None,
        recycles: int = 0,
        event: AuditEvent | None = None,
        expected_generation: int | None = None,
        applied: AppliedRecommendation | None = None,
    ) -> tuple[DesiredPool, bool]:
        """Store a pool's desired state; an identical write changes and records nothing.

        Works like `VersionedTable.write`; returns the present desired state, and whether the row is
        new.

        Args:
            pause: when and by whom it was paused; None if it is not paused.
            event: None if the change has already been recorded.
            applied: the recommendation that caused the change, recorded in the same transaction.

        Raises:
            StaleVersion: the generation is not the expected one.
            RecommendationClosed: the recommendation was already closed.
        """
        paused = {"paused_at": pause and pause.since, "paused_by": pause and pause.by}
        saved = await self._rows.write(
            fixed={"pool_id": pool_id},
            values=asdict(size) | paused | {"recycles": recycles},
            event=event,
            expected_generation=expected_generation,
            also=partial(record_applied, *applied) if applied else None,
        )
        return _desired_pool(saved.row), saved.created


def _desired_pool(row: RowMapping) -> DesiredPool:
    values = dict(row)
    size = PoolSize(**{each.name: values.pop(each.name) for each in fields(PoolSize)})
    since, by = values.pop("paused_at"), values.pop("paused_by")
    return DesiredPool(size=size, pause=Pause(since=since, by=by) if since else None, **values)
