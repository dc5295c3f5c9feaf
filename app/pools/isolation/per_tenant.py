"""The per_tenant strategy: a login role and a schema of its own in the server's database."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.desired_state import Tenant
from app.domain.tenant import TenantSpec
from app.pools.isolation.credentials import Credentials
from app.pools.isolation.dedicated_role import DedicatedRoleIsolation
from app.pools.isolation.objects import DatabaseObjects
from app.pools.isolation.strategy import SCHEMA_MISSING
from app.pools.server import Server


class PerTenantIsolation(DedicatedRoleIsolation):
    """Postgres keeps each tenant in its schema."""

    object_kinds = ("ROLE", "SCHEMA")

    def __init__(self, credentials: Credentials, extension_schemas: Sequence[str] = ()) -> None:
        """Every tenant may use *extension_schemas*, which follow its own on the search_path."""
        super().__init__(credentials)
        self._extension_schemas = extension_schemas

    def database(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - of all tenants
        return server.admin_login.database

    def search_path(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - on any server
        return ", ".join(f'"{each}"' for each in (self.role(spec), *self._extension_schemas))

    def session_setup(self, spec: TenantSpec) -> str:
        return f"{super().session_setup(spec)}; SELECT {_schema_of(spec)}"

    def advisory_unlock(self, spec: TenantSpec) -> str:
        return f"{super().advisory_unlock(spec)}, {_schema_of(spec)}"

    async def provision(
        self, server: Server, tenant: Tenant, *, adopt: bool, max_size: int | None = None
    ) -> list[str]:
        """Create role and schema, and close the database to everyone else, in one transaction."""
        name, mark = self.role(tenant.spec), self.mark(tenant)
        database = server.admin_login.database
        async with server.admin() as connection, connection.transaction():
            objects = DatabaseObjects(connection)
            exists = await objects.exists("SCHEMA", name, mark=mark, adopt=adopt)
            await self._put_role(objects, server, tenant, adopt=adopt, max_size=max_size)
            if exists:
                await objects.execute("ALTER SCHEMA %I OWNER TO %I", name, name)
            else:
                await objects.execute("CREATE SCHEMA %I AUTHORIZATION %I", name, name)
            # The role may have revoked its own rights.
            await objects.execute("GRANT ALL ON SCHEMA %I TO %I", name, name)
            await objects.execute("COMMENT ON SCHEMA %I IS %L", name, mark)
            await objects.execute("REVOKE ALL ON SCHEMA %I FROM PUBLIC", name)
            await objects.execute("GRANT TEMPORARY ON DATABASE %I TO %I", database, name)
            await objects.revoke_from_public(database)
            await objects.revoke_default_privileges(name)
            await objects.grant_schema_usage(name, self._extension_schemas)
            await self._restore_access(objects, server, name)
        return [f"role {name}", f"schema {name}"]

    async def _restore_access(self, objects: DatabaseObjects, server: Server, role: str) -> None:
        database = server.admin_login.database
        await objects.execute("GRANT CONNECT ON DATABASE %I TO %I", database, role)
        await objects.set_search_path(role, database, self._extension_schemas)


def _schema_of(spec: TenantSpec) -> str:
    """An expression that fails if the tenant's schema was dropped, renamed, or closed to it.

    The schema is first on the session's search_path, and Postgres skips one that cannot be used.
    """
    return (
        f"CASE pg_catalog.current_schema() WHEN '{spec.id.object_name}' THEN '' "
        f"ELSE pg_catalog.current_setting('{SCHEMA_MISSING}') END"
    )
