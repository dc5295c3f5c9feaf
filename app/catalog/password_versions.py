"""The password version of each login role; never a password.

A row stays after its tenant is deleted, so a later tenant of the same name never gets a password
that was rotated away.
"""

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.catalog.audit_log import record
from app.catalog.database import Store
from app.catalog.tables import password_versions
from app.domain.audit import AuditEvent
from app.domain.password_version import PasswordVersion

_COLUMNS = password_versions.c
_VERSION = (_COLUMNS.server, _COLUMNS.role, _COLUMNS.version, _COLUMNS.applied)


class PasswordVersions(Store):
    async def load(self) -> tuple[PasswordVersion, ...]:
        """Load all versions except first ones."""
        return await self._database.load(select(*_VERSION), lambda row: PasswordVersion(**row))

    async def advance(
        self, server: str, role: str, *, beyond: int, event: AuditEvent
    ) -> PasswordVersion:
        """Set the next version for *role*, larger than *beyond*, as desired and not yet applied.

        A version that is not known to be applied is skipped, because Postgres may have it or not.
        """
        first = {"server": server, "role": role, "version": beyond + 1, "applied": False}
        grown = {
            "version": func.greatest(_COLUMNS.version, beyond) + 1,
            "applied": False,
            "updated_at": func.now(),
        }
        statement = (
            insert(password_versions)
            .values(**first)
            .on_conflict_do_update(index_elements=["server", "role"], set_=grown)
            .returning(_COLUMNS.version)
        )
        async with self._database.transaction() as connection:
            version = (await connection.execute(statement)).scalar_one()
            await record(connection, event)
        return PasswordVersion(server=server, role=role, version=version, applied=False)

    async def record_applied(self, server: str, role: str, version: int) -> None:
        """Record that Postgres has *version*, which is later than the known one."""
        values = {"version": version, "applied": True}
        statement = (
            insert(password_versions)
            .values(server=server, role=role, **values)
            .on_conflict_do_update(
                index_elements=["server", "role"],
                set_={**values, "updated_at": func.now()},
                where=_COLUMNS.version <= version,
            )
        )
        async with self._database.transaction() as connection:
            await connection.execute(statement)

    async def mark_applied(self, known: PasswordVersion) -> None:
        """Record that Postgres has this version, unless a later one is desired by now."""
        change = (
            update(password_versions)
            .where(_COLUMNS.server == known.server, _COLUMNS.role == known.role)
            .where(_COLUMNS.version == known.version)
            .values(applied=True)
        )
        async with self._database.transaction() as connection:
            await connection.execute(change)
