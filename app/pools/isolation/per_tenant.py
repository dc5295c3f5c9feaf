"""The per_tenant strategy: a login role and a schema of its own in the server's database."""

from collections.abc import Iterator, Sequence

from app.domain.tenant import Tenant, TenantSpec
from app.pools.isolation.dedicated_role import DedicatedRoleIsolation
from app.pools.isolation.objects import (
    execute,
    grant_schema_usage,
    revoke_default_privileges,
    revoke_from_public,
    set_search_path,
    sql,
)
from app.pools.isolation.role_passwords import RolePasswords
from app.pools.isolation.strategy import SCHEMA_MISSING
from app.pools.servers.server import Server


class PerTenantIsolation(DedicatedRoleIsolation):
    """Postgres keeps each tenant in its schema."""

    object_kinds = ("ROLE", "SCHEMA")

    def __init__(
        self, role_passwords: RolePasswords, extension_schemas: Sequence[str] = ()
    ) -> None:
        """Let every tenant use *extension_schemas*, which follow its own on the search_path."""
        super().__init__(role_passwords)
        self._extension_schemas = extension_schemas

    def database(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - of all tenants
        return server.admins.login.database

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
        name, mark = self.role(tenant.spec), self.marks(server, tenant)[0]
        database = server.admins.login.database
        async with server.admin() as connection:
            facts = await self._read_facts(connection, server, tenant, adopt=adopt)
            usage = await grant_schema_usage(connection, name, self._extension_schemas)
            if facts.schema is None:
                put_schema = "CREATE SCHEMA %I AUTHORIZATION %I"
            else:
                put_schema = "ALTER SCHEMA %I OWNER TO %I"
            statements = [
                *self._put_role(facts, server, tenant, max_size=max_size),
                sql(put_schema, name, name),
                # The role may have revoked its own rights.
                sql("GRANT ALL ON SCHEMA %I TO %I", name, name),
                sql("COMMENT ON SCHEMA %I IS %L", name, mark),
                sql("REVOKE ALL ON SCHEMA %I FROM PUBLIC", name),
                *revoke_from_public(facts, database),
                *revoke_default_privileges(name),
                *usage,
                *self._restore_access(server, name),
            ]
            await execute(connection, statements)
        return [f"role {name}", f"schema {name}"]

    def _restore_access(self, server: Server, role: str) -> Iterator[str]:
        database = server.admins.login.database
        yield sql("GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I", database, role)
        yield set_search_path(role, database, self._extension_schemas)


def _schema_of(spec: TenantSpec) -> str:
    """SQL that fails if the tenant's schema was dropped, renamed, or closed to the tenant.

    The schema is first on the session's search_path, and Postgres skips a schema that cannot be
    used.
    """
    return (
        f"CASE pg_catalog.current_schema() WHEN '{spec.id.object_name}' THEN '' "
        f"ELSE pg_catalog.current_setting('{SCHEMA_MISSING}') END"
    )
