"""Desired state of pools; each change is stored with its audit event."""

from dataclasses import asdict
from functools import partial

from sqlalchemy import RowMapping

from app.catalog.database import fields_in
from app.catalog.recommendations import record_applied
from app.catalog.tables import pools
from app.catalog.versioned_table import VersionedTable
from app.domain.audit import AuditEvent
from app.domain.desired_pool import DesiredPool, Pause
from app.domain.pool import PoolSize
from app.domain.recommendation import Recommendation

AppliedRecommendation = tuple[Recommendation, AuditEvent]
"""A recommendation that is closed as applied, and its event."""


class DesiredPools(VersionedTable[str, DesiredPool]):
    table = pools

    def _value(self, row: RowMapping) -> DesiredPool:
        size, since = PoolSize(**fields_in(row, PoolSize)), row["paused_at"]
        pause = Pause(since=since, by=row["paused_by"]) if since else None
        return DesiredPool(size=size, pause=pause, **fields_in(row, DesiredPool))

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

        Returns the present desired state, and whether the row is new.

        Args:
            pause: when and by whom it was paused; None if it is not paused.
            event: None if the change has already been recorded.
            applied: the recommendation that caused the change, recorded in the same transaction.

        Raises:
            StaleVersion: the generation is not the expected one.
            RecommendationClosed: the recommendation was already closed.
        """
        paused = {"paused_at": pause and pause.since, "paused_by": pause and pause.by}
        return await self._write(
            fixed={"pool_id": pool_id},
            values=asdict(size) | paused | {"recycles": recycles},
            event=event,
            expected_generation=expected_generation,
            also=partial(record_applied, *applied) if applied else None,
        )
