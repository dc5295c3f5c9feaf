"""The per_database strategy: a login role and a database of its own."""

from __future__ import annotations

from app.domain.desired import Tenant
from app.domain.tenant import TenantSpec
from app.pools.driver import Login
from app.pools.isolation.credentials import Credentials
from app.pools.isolation.login import login_as
from app.pools.isolation.objects import Objects, mark_of
from app.pools.server import Server


class PerDatabase:
    """Each tenant owns a database nobody else may enter."""

    def __init__(self, credentials: Credentials) -> None:
        """Derive the roles' passwords with *credentials*."""
        self._credentials = credentials

    def login(self, server: Server, spec: TenantSpec) -> Login:
        """The tenant's role, in the tenant's database."""
        name = spec.id.object_name
        password = self._credentials.password(server.name, name)
        return login_as(server, name, password, pool_id=spec.pool_id, database=name)

    def context(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the role is the context
        """Nothing: the database is the tenant's own."""
        return ""

    def proof(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the role is the context
        """A statement that fails only in a failed transaction, which a commit would hide."""
        return "SELECT 1"

    async def provision(self, server: Server, tenant: Tenant, *, adopt: bool) -> list[str]:
        """Create role and database; the database opens only when nobody else may enter.

        CREATE DATABASE cannot be part of a transaction: one left unmarked by a crash is known
        as the tenant's by its owner, the role that was marked before.
        """
        name, mark = tenant.spec.id.object_name, mark_of(tenant)
        async with server.admin() as connection:
            objects = Objects(connection)
            async with connection.transaction():
                owned = await connection.fetchval(_OWNED_BY_MARKED_ROLE, name, mark)
                exists = owned or await objects.is_ours("DATABASE", name, mark=mark, adopt=adopt)
                verifier = self._credentials.verifier(server.name, name)
                await objects.login_role(name, verifier, mark=mark, adopt=adopt)
            if exists:
                await objects.run("ALTER DATABASE %I OWNER TO %I", name, name)
            else:
                await objects.run(
                    "CREATE DATABASE %I OWNER %I TEMPLATE template0 ALLOW_CONNECTIONS false",
                    *(name, name),
                )
            await objects.run("COMMENT ON DATABASE %I IS %L", name, mark)
            await objects.run("REVOKE ALL ON DATABASE %I FROM PUBLIC", name)
            await objects.run("ALTER DATABASE %I ALLOW_CONNECTIONS true", name)
        return [f"role {name}", f"database {name}"]

    async def retire(self, server: Server, tenant: Tenant) -> None:
        """Take the role's login away."""
        async with server.admin() as connection:
            await Objects(connection).disable_login(
                tenant.spec.id.object_name, mark=mark_of(tenant)
            )


_OWNED_BY_MARKED_ROLE = """
select exists (
    select from pg_database join pg_roles on pg_roles.oid = datdba
    where datname = $1 and rolname = $1 and shobj_description(pg_roles.oid, 'pg_authid') = $2
)
"""
