"""The instances of the service, as each of them registers itself."""

from sqlalchemy import func, select, text

from app.catalog.database import Store, fields_in
from app.catalog.tables import instances, leadership
from app.domain.leadership import ABANDONED_AFTER, InstanceRecord

# An instance not seen for longer has ended; one that stopped cleanly is no longer registered.
_RECENT = text(f"interval '{ABANDONED_AFTER} seconds'")


class Instances(Store):
    async def load(self) -> tuple[InstanceRecord, ...]:
        """Load the instances that run, as far as known: the active one first, then by start."""
        held = (leadership.c.holder == instances.c.id) & ~leadership.c.released
        statement = (
            select(instances, leadership.c.epoch, leadership.c.acquired_at)
            .select_from(instances.outerjoin(leadership, held))
            .where(leadership.c.epoch.is_not(None) | (instances.c.seen_at > func.now() - _RECENT))
            .order_by(leadership.c.epoch, instances.c.started_at)  # nulls are last
        )
        return await self._database.load(
            statement, lambda row: InstanceRecord(**fields_in(row, InstanceRecord))
        )
