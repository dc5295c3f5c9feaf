"""The per_database strategy: a login role and a database of its own."""

from collections.abc import Iterator

from app.domain.tenant import Tenant, TenantSpec
from app.pools.isolation.dedicated_role import DedicatedRoleIsolation
from app.pools.isolation.objects import (
    ObjectFacts,
    execute,
    reset_database,
    revoke_default_privileges,
    revoke_from_public,
    sql,
)
from app.pools.isolation.strategy import FIXED_SETTINGS
from app.pools.servers.server import Server

# What is set for the database and could keep its role from logging in: on nodes nothing overrides
# it. The timeouts could end each of its statements or transactions, if they are very short.
_LOCKING_TIMEOUTS = (
    "idle_in_transaction_session_timeout",
    "statement_timeout",
    "transaction_timeout",
)
_MAY_CREATE = "SELECT has_schema_privilege($1, 'public', 'CREATE')"


class PerDatabaseIsolation(DedicatedRoleIsolation):
    """Each tenant owns a database that nobody else can enter."""

    object_kinds = ("ROLE", "DATABASE")

    def database(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - on any server
        return self.role(spec)

    def search_path(self, server: Server, spec: TenantSpec) -> None:
        """The tenant's own choice: the database is its own."""

    async def provision(
        self, server: Server, tenant: Tenant, *, adopt: bool, max_size: int | None = None
    ) -> list[str]:
        """Create role and database; the database opens only once nobody else can enter."""
        name, mark = self.role(tenant.spec), self.marks(server, tenant)[0]
        async with server.admin() as connection:
            facts = await self._read_facts(connection, server, tenant, adopt=adopt)
            role = [
                *self._put_role(facts, server, tenant, max_size=max_size),
                *revoke_from_public(facts, server.admins.login.database),
            ]
            await execute(connection, role)
            if facts.database is None:
                await connection.execute(
                    sql(
                        "CREATE DATABASE %I OWNER %I TEMPLATE template0 ALLOW_CONNECTIONS false",
                        *(name, name),
                    )
                )
            statements = [
                sql("ALTER DATABASE %I OWNER TO %I", name, name),
                sql("COMMENT ON DATABASE %I IS %L", name, mark),
                sql("REVOKE ALL ON DATABASE %I FROM PUBLIC", name),
                # A per_tenant tenant of the same id may have left its role with these.
                sql("REVOKE ALL ON DATABASE %I FROM %I", server.admins.login.database, name),
            ]
            await execute(connection, [*statements, *self._restore_access(server, name)])
        # The owner may grant access to its own database again; but nobody else gets in to use it.
        async with server.admin(name) as connection:
            facts = await ObjectFacts.read(connection, name, [mark])
            await execute(
                connection,
                [*revoke_from_public(facts, name), *revoke_default_privileges(name)],
            )
            # Before PostgreSQL 15 the schema public does not belong to the owner of the database.
            if facts.can_grant_public_schema and not await connection.fetchval(_MAY_CREATE, name):
                await execute(connection, [sql("GRANT ALL ON SCHEMA public TO %I", name)])
        return [f"role {name}", f"database {name}"]

    def _restore_access(
        self,
        server: Server,  # noqa: ARG002 - on any server
        role: str,
    ) -> Iterator[str]:
        yield sql("GRANT ALL ON DATABASE %I TO %I", role, role)
        yield reset_database(role, FIXED_SETTINGS, _LOCKING_TIMEOUTS)
        yield sql("ALTER DATABASE %I WITH CONNECTION LIMIT -1", role)
        yield sql("ALTER DATABASE %I ALLOW_CONNECTIONS true", role)
