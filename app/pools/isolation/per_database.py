"""The per_database strategy: a login role and a database of its own."""

from __future__ import annotations

from app.domain.desired_state import Tenant
from app.domain.tenant import TenantSpec
from app.pools.isolation.dedicated_role import DedicatedRoleIsolation
from app.pools.isolation.objects import DatabaseObjects
from app.pools.server import Server


class PerDatabaseIsolation(DedicatedRoleIsolation):
    """Each tenant owns a database that nobody else can enter."""

    object_kinds = ("ROLE", "DATABASE")

    def database(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - on any server
        return self.role(spec)

    def search_path(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - everywhere
        return '"$user", public'

    async def provision(
        self, server: Server, tenant: Tenant, *, adopt: bool, max_size: int | None = None
    ) -> list[str]:
        """Create role and database; the database opens only when nobody else can enter."""
        name, mark = self.role(tenant.spec), self.mark(tenant)
        async with server.admin() as connection:
            objects = DatabaseObjects(connection)
            async with connection.transaction():
                exists = await objects.exists("DATABASE", name, mark=mark, adopt=adopt)
                await self._put_role(objects, server, tenant, adopt=adopt, max_size=max_size)
            if exists:
                await objects.execute("ALTER DATABASE %I OWNER TO %I", name, name)
            else:
                await objects.execute(
                    "CREATE DATABASE %I OWNER %I TEMPLATE template0 ALLOW_CONNECTIONS false",
                    *(name, name),
                )
            await objects.execute("COMMENT ON DATABASE %I IS %L", name, mark)
            await objects.execute("REVOKE ALL ON DATABASE %I FROM PUBLIC", name)
            await self._restore_access(objects, server, name)
        # The owner may open again what it owns; but nobody else gets in to use it.
        async with server.admin(name) as connection, connection.transaction():
            objects = DatabaseObjects(connection)
            await objects.revoke_from_public(name)
            await objects.revoke_default_privileges(name)
        return [f"role {name}", f"database {name}"]

    async def _restore_access(
        self,
        objects: DatabaseObjects,
        server: Server,  # noqa: ARG002 - on any server
        role: str,
    ) -> None:
        await objects.execute("GRANT ALL ON DATABASE %I TO %I", role, role)
        await objects.execute("ALTER DATABASE %I RESET ALL", role)
        await objects.execute("ALTER DATABASE %I WITH CONNECTION LIMIT -1", role)
        await objects.execute("ALTER DATABASE %I ALLOW_CONNECTIONS true", role)
