"""The per_database strategy: a login role and a database of its own."""

from __future__ import annotations

from app.domain.desired_state import Tenant
from app.domain.tenant import TenantSpec
from app.pools.driver import Login
from app.pools.isolation.credentials import Credentials
from app.pools.isolation.dedicated_role import DedicatedRoleIsolation
from app.pools.isolation.login import login_as
from app.pools.isolation.objects import DatabaseObjects, mark_of
from app.pools.server import Server

_PATH = '"$user", public'


class PerDatabaseIsolation(DedicatedRoleIsolation):
    """Each tenant owns a database nobody else may enter."""

    def __init__(self, credentials: Credentials) -> None:
        """Derive the roles' passwords with *credentials*."""
        self._credentials = credentials

    def database(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - on any server
        """The tenant's own database."""
        return spec.id.object_name

    def login(self, server: Server, spec: TenantSpec) -> Login:
        """The tenant's role, in the tenant's database."""
        name = spec.id.object_name
        password = self._credentials.password(server.name, name)
        return login_as(
            server,
            name,
            password,
            pool_id=spec.pool_id,
            search_path=_PATH,
            settings=self.settings,
            database=name,
        )

    async def provision(
        self, server: Server, tenant: Tenant, *, adopt: bool, max_size: int | None = None
    ) -> list[str]:
        """Create role and database; the database opens only when nobody else may enter.

        CREATE DATABASE cannot be part of a transaction: one left unmarked by a crash is known
        as the tenant's by its owner, the role that was marked before.
        """
        name, mark = tenant.spec.id.object_name, mark_of(tenant)
        async with server.admin() as connection:
            objects = DatabaseObjects(connection)
            async with connection.transaction():
                owned = await connection.fetchval(_OWNED_BY_MARKED_ROLE, name, mark)
                exists = owned or await objects.exists("DATABASE", name, mark=mark, adopt=adopt)
                verifier = self._credentials.verifier(server.name, name)
                await objects.put_login_role(name, verifier, mark=mark, adopt=adopt)
                if max_size is not None:
                    await objects.set_connection_limit(name, self.connection_limit(max_size))
            if exists:
                await objects.execute("ALTER DATABASE %I OWNER TO %I", name, name)
            else:
                await objects.execute(
                    "CREATE DATABASE %I OWNER %I TEMPLATE template0 ALLOW_CONNECTIONS false",
                    *(name, name),
                )
            await objects.execute("COMMENT ON DATABASE %I IS %L", name, mark)
            await objects.execute("REVOKE ALL ON DATABASE %I FROM PUBLIC", name)
            await _make_enterable(objects, name)
        # What the tenant owns it may open again; but nobody else gets in to use it.
        async with server.admin(name) as connection, connection.transaction():
            objects = DatabaseObjects(connection)
            await objects.revoke_from_public(name)
            await objects.revoke_default_privileges(name)
        return [f"role {name}", f"database {name}"]

    async def rotate_password(self, server: Server, tenant: Tenant, version: int) -> None:
        """Give the role a new password, and undo what keeps it out of its own database."""
        name = tenant.spec.id.object_name
        verifier = self._credentials.verifier(server.name, name, version)
        async with server.admin() as connection:
            objects = DatabaseObjects(connection)
            async with connection.transaction():
                await objects.put_login_role(name, verifier, mark=mark_of(tenant), adopt=False)
            await _make_enterable(objects, name)


async def _make_enterable(objects: DatabaseObjects, name: str) -> None:
    """Take back what the owner of the database may have done to its connections."""
    await objects.execute("GRANT ALL ON DATABASE %I TO %I", name, name)
    await objects.execute("ALTER DATABASE %I RESET ALL", name)
    await objects.execute("ALTER DATABASE %I WITH CONNECTION LIMIT -1", name)
    await objects.execute("ALTER DATABASE %I ALLOW_CONNECTIONS true", name)


_OWNED_BY_MARKED_ROLE = """
select exists (
    select from pg_database join pg_roles on pg_roles.oid = datdba
    where datname = $1 and rolname = $1 and shobj_description(pg_roles.oid, 'pg_authid') = $2
)
"""
