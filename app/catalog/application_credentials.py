"""Credentials of applications; each change is stored with its audit event, uses without one."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, RowMapping, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.catalog.audit_log import record
from app.catalog.database import Database, Store
from app.catalog.in_doubt_writes import InDoubtWrites
from app.catalog.tables import application_credentials
from app.domain.application_credential import ApplicationCredential
from app.domain.audit import AuditEvent
from app.domain.tenant import TenantId

_COLUMNS = application_credentials.c


class StoredApplicationCredentials(Store):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._revocations: InDoubtWrites[ApplicationCredential] = InDoubtWrites(database)

    async def load(self) -> tuple[ApplicationCredential, ...]:
        """Load all of them, by tenant and name."""
        statement = select(application_credentials).order_by(_COLUMNS.tenant, _COLUMNS.name)
        return await self._database.load(statement, _credential)

    async def save(
        self,
        tenant: TenantId,
        name: str,
        verifier: str,
        *,
        expires_at: datetime | None,
        event: AuditEvent,
    ) -> ApplicationCredential:
        """Create a credential.

        An existing one of that name is replaced: its commit was not confirmed, so nobody got its
        password.
        """
        fresh = {
            "verifier": verifier,
            "created_at": func.now(),
            "expires_at": expires_at,
            "last_used_at": None,
        }
        statement = (
            insert(application_credentials)
            .values(tenant=tenant, name=name, **fresh)
            .on_conflict_do_update(index_elements=["tenant", "name"], set_=fresh)
            .returning(application_credentials)
        )
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).mappings().one()
            await record(connection, event)
            return _credential(row)

    async def save_uses(self, used: Sequence[ApplicationCredential]) -> None:
        """Store when *used* were last used, unless they were revoked in the meantime."""
        statement = (
            update(application_credentials)
            .where(
                _COLUMNS.tenant == bindparam("of_tenant"),
                _COLUMNS.name == bindparam("of_name"),
                _COLUMNS.created_at == bindparam("since"),
            )
            .values(last_used_at=bindparam("at"))
        )
        values = [
            {
                "of_tenant": each.tenant,
                "of_name": each.name,
                "since": each.created_at,
                "at": each.last_used_at,
            }
            for each in used
        ]
        async with self._database.transaction() as connection:
            await connection.execute(statement, values)

    async def delete(self, credential: ApplicationCredential, *, event: AuditEvent) -> None:
        """Delete it; the second time, nothing changes."""
        async with self._revocations.writing(credential) as connection:
            gone = await connection.execute(delete(application_credentials).where(*_is(credential)))
            if gone.rowcount:
                await record(connection, event)

    @property
    def in_doubt(self) -> tuple[ApplicationCredential, ...]:
        """Credentials that may be deleted although the response was lost."""
        return self._revocations.keys

    async def has(self, credential: ApplicationCredential) -> bool:
        """Whether it is stored; it is not in doubt any more."""
        this_row = select(_COLUMNS.name).where(*_is(credential)).with_for_update()
        async with self._revocations.reading(credential) as connection:
            return (await connection.execute(this_row)).one_or_none() is not None


def _is(credential: ApplicationCredential) -> tuple[ColumnElement[bool], ...]:
    return (_COLUMNS.tenant == credential.tenant, _COLUMNS.name == credential.name)


def _credential(row: RowMapping) -> ApplicationCredential:
    return ApplicationCredential(**{**row, "tenant": TenantId(row["tenant"])})
