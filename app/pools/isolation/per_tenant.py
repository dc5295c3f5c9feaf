"""The per_tenant strategy: a login role and a schema of its own in the server's database."""

from __future__ import annotations

from app.domain.desired import Tenant
from app.domain.tenant import TenantSpec
from app.pools.driver import Login
from app.pools.isolation.credentials import Credentials
from app.pools.isolation.login import login_as
from app.pools.isolation.objects import Objects, mark_of
from app.pools.server import Server


class PerTenant:
    """Each tenant logs in as itself; Postgres keeps it in its schema."""

    def __init__(self, credentials: Credentials) -> None:
        """Derive the roles' passwords with *credentials*."""
        self._credentials = credentials

    def login(self, server: Server, spec: TenantSpec) -> Login:
        """The tenant's role, in the server's own database."""
        role = spec.id.object_name
        password = self._credentials.password(server.name, role)
        return login_as(server, role, password, pool_id=spec.pool_id)

    def context(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the role is the context
        """Nothing: the session is the tenant's own."""
        return ""

    def proof(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the role is the context
        """A statement that fails only in a failed transaction, which a commit would hide."""
        return "SELECT 1"

    async def provision(self, server: Server, tenant: Tenant, *, adopt: bool) -> list[str]:
        """Create role and schema, in one transaction."""
        name, mark, database = tenant.spec.id.object_name, mark_of(tenant), server.admin_login
        async with server.admin() as connection, connection.transaction():
            objects = Objects(connection)
            exists = await objects.is_ours("SCHEMA", name, mark=mark, adopt=adopt)
            verifier = self._credentials.verifier(server.name, name)
            await objects.login_role(name, verifier, mark=mark, adopt=adopt)
            if exists:
                await objects.run("ALTER SCHEMA %I OWNER TO %I", name, name)
            else:
                await objects.run("CREATE SCHEMA %I AUTHORIZATION %I", name, name)
            await objects.run("COMMENT ON SCHEMA %I IS %L", name, mark)
            await objects.run("REVOKE ALL ON SCHEMA %I FROM PUBLIC", name)
            await objects.run("GRANT CONNECT ON DATABASE %I TO %I", database.database, name)
            await objects.run("GRANT TEMPORARY ON DATABASE %I TO %I", database.database, name)
            await objects.run("ALTER ROLE %I IN DATABASE %I RESET ALL", name, database.database)
            await objects.run(
                "ALTER ROLE %I IN DATABASE %I SET search_path = %I, pg_temp",
                *(name, database.database, name),
            )
        return [f"role {name}", f"schema {name}"]

    async def retire(self, server: Server, tenant: Tenant) -> None:
        """Take the role's login away."""
        async with server.admin() as connection:
            await Objects(connection).disable_login(
                tenant.spec.id.object_name, mark=mark_of(tenant)
            )
