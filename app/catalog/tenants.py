"""Declared tenants; each change is stored with its audit event."""

from sqlalchemy import ColumnElement, RowMapping, and_, delete, func, not_, select, update

from app.catalog.audit_log import record
from app.catalog.database import fields_in
from app.catalog.tables import application_credentials, pools, recommendations, tenants
from app.catalog.versioned_table import VersionedTable
from app.domain.audit import AuditEvent
from app.domain.errors import TenantNotFound
from app.domain.recommendation import RecommendationStatus
from app.domain.tenant import Tenant, TenantId, TenantSpec


class Tenants(VersionedTable[TenantId, Tenant]):
    table = tenants

    def _value(self, row: RowMapping) -> Tenant:
        return Tenant(spec=TenantSpec.from_dict(dict(row)), **fields_in(row, Tenant))

    async def save(
        self, spec: TenantSpec, *, event: AuditEvent, expected_generation: int | None = None
    ) -> tuple[Tenant, bool]:
        """Create or change a tenant; an identical write keeps the generation and records nothing.

        Returns the present tenant, and whether it was created.

        Raises:
            StaleVersion: its generation is not the expected one.
            ImmutableField: it has another server or strategy.
        """
        values = spec.as_dict()
        return await self._write(
            fixed={name: values.pop(name) for name in ("id", "server", "strategy")},
            values=values,
            event=event,
            expected_generation=expected_generation,
        )

    async def mark_provisioned(self, tenant: TenantId, *, event: AuditEvent) -> Tenant:
        """Record that its database objects exist; the second time, nothing changes.

        Raises:
            TenantNotFound: there is no such tenant.
        """
        fresh = tenants.c.provisioned_at.is_(None)
        return await self._mark(tenant, fresh, event, provisioned_at=func.now())

    async def mark_deleting(self, tenant: TenantId, *, event: AuditEvent) -> Tenant:
        """Record that it is being deleted; the second time, nothing changes.

        Raises:
            TenantNotFound: there is no such tenant.
        """
        return await self._mark(tenant, not_(tenants.c.deleting), event, deleting=True)

    async def delete(self, tenant: TenantId, *, event: AuditEvent) -> None:
        """Delete it with its credentials, desired pool and open recommendations, if it exists."""
        advice, credentials = recommendations.c, application_credentials
        async with self._database.transaction() as connection:
            gone = await connection.execute(delete(tenants).where(tenants.c.id == tenant))
            if not gone.rowcount:
                return
            await connection.execute(delete(credentials).where(credentials.c.tenant == tenant))
            await connection.execute(delete(pools).where(pools.c.pool_id == tenant))
            is_open = and_(advice.tenant == tenant, advice.status == RecommendationStatus.OPEN)
            await connection.execute(delete(recommendations).where(is_open))
            await record(connection, event)

    async def _mark(
        self, tenant: TenantId, when: ColumnElement[bool], event: AuditEvent, **values: object
    ) -> Tenant:
        this = tenants.c.id == tenant
        change = update(tenants).where(this, when).values(**values, updated_at=func.now())
        async with self._writes.writing(tenant) as connection:
            row = (await connection.execute(change.returning(tenants))).mappings().one_or_none()
            if row is not None:
                await record(connection, event)
                return self._value(row)
            row = (await connection.execute(select(tenants).where(this))).mappings().one_or_none()
            if row is None:
                raise TenantNotFound(f"There is no tenant {tenant}.")
            return self._value(row)
