"""The per_tenant strategy: a login role and a schema of its own in the server's database."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.desired_state import Tenant
from app.domain.tenant import TenantSpec
from app.pools.driver import Login
from app.pools.isolation.credentials import Credentials
from app.pools.isolation.dedicated_role import DedicatedRoleIsolation
from app.pools.isolation.login import login_as
from app.pools.isolation.objects import DatabaseObjects, mark_of
from app.pools.isolation.strategy import SCHEMA_MISSING
from app.pools.server import Server


class PerTenantIsolation(DedicatedRoleIsolation):
    """Each tenant logs in as itself; Postgres keeps it in its schema."""

    def __init__(self, credentials: Credentials, schemas: Sequence[str] = ()) -> None:
        """Derive the roles' passwords with *credentials*; let every tenant use *schemas*, too."""
        self._credentials = credentials
        self._schemas = schemas

    def database(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - of all tenants
        """The server's own database."""
        return server.admin_login.database

    def login(self, server: Server, spec: TenantSpec) -> Login:
        """The tenant's role, in the server's own database and there in the tenant's schema."""
        role = spec.id.object_name
        password = self._credentials.password(server.name, role)
        return login_as(
            server,
            role,
            password,
            pool_id=spec.pool_id,
            search_path=self._path(role),
            settings=self.settings,
        )

    def _path(self, role: str) -> str:
        return ", ".join(f'"{schema}"' for schema in (role, *self._schemas))

    def session_setup(self, spec: TenantSpec) -> str:
        """The same as under every role of its own; it fails without the tenant's schema."""
        return f"{super().session_setup(spec)}; SELECT {_schema_of(spec)}"

    def advisory_unlock(self, spec: TenantSpec) -> str:
        """The same as under every role of its own; it fails without the tenant's schema."""
        return f"{super().advisory_unlock(spec)}, {_schema_of(spec)}"

    async def provision(
        self, server: Server, tenant: Tenant, *, adopt: bool, max_size: int | None = None
    ) -> list[str]:
        """Create role and schema, and close the database to everybody else, in one transaction."""
        name, mark, database = tenant.spec.id.object_name, mark_of(tenant), server.admin_login
        async with server.admin() as connection, connection.transaction():
            objects = DatabaseObjects(connection)
            exists = await objects.exists("SCHEMA", name, mark=mark, adopt=adopt)
            verifier = self._credentials.verifier(server.name, name)
            await objects.put_login_role(name, verifier, mark=mark, adopt=adopt)
            if max_size is not None:
                await objects.set_connection_limit(name, self.connection_limit(max_size))
            if exists:
                await objects.execute("ALTER SCHEMA %I OWNER TO %I", name, name)
            else:
                await objects.execute("CREATE SCHEMA %I AUTHORIZATION %I", name, name)
            # What the role may have taken from itself.
            await objects.execute("GRANT ALL ON SCHEMA %I TO %I", name, name)
            await objects.execute("COMMENT ON SCHEMA %I IS %L", name, mark)
            await objects.execute("REVOKE ALL ON SCHEMA %I FROM PUBLIC", name)
            await objects.execute("GRANT CONNECT ON DATABASE %I TO %I", database.database, name)
            await objects.execute("GRANT TEMPORARY ON DATABASE %I TO %I", database.database, name)
            await objects.revoke_from_public(database.database)
            await objects.revoke_default_privileges(name)
            await objects.grant_schema_usage(name, self._schemas)
            await objects.set_search_path(name, database.database, self._schemas)
        return [f"role {name}", f"schema {name}"]

    async def rotate_password(self, server: Server, tenant: Tenant, version: int) -> None:
        """Give the role a new password, and take back what it has set for its own sessions."""
        name = tenant.spec.id.object_name
        verifier = self._credentials.verifier(server.name, name, version)
        async with server.admin() as connection, connection.transaction():
            objects = DatabaseObjects(connection)
            await objects.put_login_role(name, verifier, mark=mark_of(tenant), adopt=False)
            await objects.execute(
                "GRANT CONNECT ON DATABASE %I TO %I", server.admin_login.database, name
            )
            await objects.set_search_path(name, server.admin_login.database, self._schemas)


def _schema_of(spec: TenantSpec) -> str:
    """An expression that fails if the tenant's schema was dropped, renamed, or closed to it.

    It stands first on the search_path of the session, and one that may not be used is passed over.
    """
    return (
        f"CASE pg_catalog.current_schema() WHEN '{spec.id.object_name}' THEN '' "
        f"ELSE pg_catalog.current_setting('{SCHEMA_MISSING}') END"
    )
