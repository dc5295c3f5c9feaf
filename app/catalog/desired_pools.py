"""What was asked of pools; every change takes its audit event along."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import RowMapping, delete, select

from app.catalog.audit_log import record
from app.catalog.database import Database
from app.catalog.optimistic_write import optimistic_write
from app.catalog.tables import pools
from app.domain.audit import AuditEvent
from app.domain.desired_state import DesiredPool
from app.domain.pool import PoolSize


class DesiredPools:
    """Desired pools. Every method may raise CatalogUnavailable."""

    def __init__(self, database: Database) -> None:
        """Keep them in *database*."""
        self._database = database

    async def load(self) -> tuple[DesiredPool, ...]:
        """Return all of them, by id."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(pools).order_by(pools.c.pool_id))
            return tuple(_desired_pool(row) for row in rows.mappings())

    async def save(
        self,
        pool_id: str,
        size: PoolSize,
        *,
        paused: bool,
        event: AuditEvent | None = None,
        expected_generation: int | None = None,
    ) -> tuple[DesiredPool, bool]:
        """Ask something of a pool; what is asked already keeps its generation and records nothing.

        Args:
            pool_id: a tenant's id, or `shared@server`.
            size: what it should be.
            paused: whether it hands out leases at all.
            event: recorded in the same transaction, if anything changes; None when the change
                was told before.
            expected_generation: 0 when nobody must have asked yet, None when all is well.

        Returns:
            What is asked now, and whether it is the first time.

        Raises:
            StaleVersion: the generation is not the expected one.
        """
        async with self._database.transaction() as connection:
            saved = await optimistic_write(
                connection,
                pools,
                fixed={"pool_id": pool_id},
                values={**asdict(size), "paused": paused},
                expected_generation=expected_generation,
            )
            if saved.changed and event is not None:
                await record(connection, event)
            return _desired_pool(saved.row), saved.created

    async def delete(self, pool_id: str, *, event: AuditEvent) -> None:
        """Ask nothing of the pool any more; if nothing was asked, do and record nothing."""
        async with self._database.transaction() as connection:
            gone = await connection.execute(delete(pools).where(pools.c.pool_id == pool_id))
            if gone.rowcount:
                await record(connection, event)


def _desired_pool(row: RowMapping) -> DesiredPool:
    return DesiredPool(
        pool_id=row["pool_id"],
        size=PoolSize(
            min_size=row["min_size"], max_size=row["max_size"], warmup_size=row["warmup_size"]
        ),
        paused=row["paused"],
        generation=row["generation"],
        updated_at=row["updated_at"],
    )
