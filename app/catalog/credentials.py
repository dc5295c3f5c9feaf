"""Which version of its password each login role has; never a password.

A row stays when its tenant is gone: a later tenant of the same name does not get back a
password that was rotated away.
"""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.catalog.audit_log import record
from app.catalog.database import Store
from app.catalog.tables import credentials
from app.domain.audit import AuditEvent
from app.domain.desired_state import CredentialVersion

_VERSION = (credentials.c.server, credentials.c.role, credentials.c.version, credentials.c.applied)


class CredentialVersions(Store):
    """Versions of passwords."""

    async def load(self) -> tuple[CredentialVersion, ...]:
        """All versions but the first."""
        return await self._database.load(select(*_VERSION), lambda row: CredentialVersion(**row))

    async def advance(self, server: str, role: str, *, event: AuditEvent) -> CredentialVersion:
        """Set the next version for *role* as desired, and not yet applied.

        A version that Postgres may not have is skipped: whether it has it is unknown.
        """
        first = {"server": server, "role": role, "version": 2, "applied": False}
        grown = {
            "version": credentials.c.version + 1,
            "applied": False,
            "updated_at": func.now(),
        }
        statement = (
            insert(credentials)
            .values(**first)
            .on_conflict_do_update(index_elements=["server", "role"], set_=grown)
            .returning(credentials.c.version)
        )
        async with self._database.transaction() as connection:
            version = (await connection.execute(statement)).scalar_one()
            await record(connection, event)
        return CredentialVersion(server=server, role=role, version=version, applied=False)

    async def mark_applied(self, credential: CredentialVersion) -> None:
        """Record that Postgres has this version, unless a later one is desired by now."""
        columns = credentials.c
        change = (
            update(credentials)
            .where(columns.server == credential.server, columns.role == credential.role)
            .where(columns.version == credential.version)
            .values(applied=True)
        )
        async with self._database.transaction() as connection:
            await connection.execute(change)
