"""The shared strategy: one role and one pool per server; each lease sets the tenant's context.

Row-level security on `current_setting('app.tenant_id', true)` protects trusted SQL that forgets a
WHERE. It does not protect against hostile SQL.
"""

from collections.abc import Iterator, Sequence

from app.domain.tenant import Tenant, TenantSpec
from app.pools.isolation.objects import (
    OF_DATABASE,
    SHARED_MARK,
    execute,
    revoke_from_public,
    sql,
)
from app.pools.isolation.strategy import ADVISORY_UNLOCK, IsolationStrategy
from app.pools.servers.server import Server

SHARED_ROLE = "poolkeeper_shared"
_DEFAULT_SEARCH_PATH = '"$user", public'

# All names are qualified, because the search_path may be the borrower's.
_TENANT_ID = "pg_catalog.current_setting('app.tenant_id', true)"
_IS_TENANT = f"coalesce({_TENANT_ID} OPERATOR(pg_catalog.=) $1, false)"
_CONTEXT_CHECK = f"SELECT 1 OPERATOR(pg_catalog./) {_IS_TENANT}::pg_catalog.int4"


class SharedIsolation(IsolationStrategy):
    """Every tenant logs in as one role that owns nothing."""

    settings = {"app.tenant_id": ""}  # noqa: RUF012 - never changed

    def role(self, spec: TenantSpec) -> str:  # noqa: ARG002 - every tenant shares one role
        return SHARED_ROLE

    def database(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - same
        return server.admins.login.database

    def search_path(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - same
        """The database's default. Temporary tables come last; the role cannot create any."""
        path = server.limits.search_path if server.limits else None
        return f"{path or _DEFAULT_SEARCH_PATH}, pg_temp"

    def connection_limit(self, max_size: int) -> int:  # noqa: ARG002 - the budget is its limit
        """None: reaching a limit would stop all tenants."""
        return -1

    def session_setup(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the same for every tenant
        """Prepare the two queries of every lease; parsing takes a quarter of its transaction."""
        return (
            f"PREPARE __poolkeeper_context_check(pg_catalog.text) AS {_CONTEXT_CHECK}; "
            f"PREPARE __poolkeeper_unlock AS {ADVISORY_UNLOCK}"
        )

    def context_setup(self, spec: TenantSpec) -> str:
        # A tenant id needs no escaping in a literal.
        return f"SET LOCAL app.tenant_id = '{spec.id}'"

    def context_check(self, spec: TenantSpec) -> str:
        """Divide by zero if the context is another tenant's, or is missing.

        It also fails if somebody deallocated the prepared statements.
        """
        return f"EXECUTE __poolkeeper_context_check('{spec.id}')"

    def advisory_unlock(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the same for every tenant
        return "EXECUTE __poolkeeper_unlock"

    async def provision(
        self,
        server: Server,
        tenant: Tenant,
        *,
        adopt: bool,
        max_size: int | None = None,  # noqa: ARG002 - see connection_limit
    ) -> list[str]:
        """Create the shared role, and close the database to everyone else."""
        async with server.admin() as connection:
            facts = await self._read_facts(connection, server, tenant, adopt=adopt)
            statements = [
                *self._put_role(facts, server, tenant),
                *self._restore_access(server, SHARED_ROLE),
                *revoke_from_public(facts, server.admins.login.database),
            ]
            if facts.can_grant_public_schema:  # to use, not to change, where tables are by default
                statements.append(sql("GRANT USAGE ON SCHEMA public TO %I", SHARED_ROLE))
            await execute(connection, statements)
        return [f"role {SHARED_ROLE}"]

    async def disable_login(
        self, server: Server, tenant: Tenant, *, fail_soon: bool = False
    ) -> None:
        """Do nothing: the role serves the other tenants."""

    def _restore_access(self, server: Server, role: str) -> Iterator[str]:
        yield sql("GRANT CONNECT ON DATABASE %I TO %I", server.admins.login.database, role)

    def marks(self, server: Server, tenant: Tenant) -> Sequence[str]:  # noqa: ARG002 - one role
        """By the database: another installation on this server has another one."""
        return [f"{SHARED_MARK}{OF_DATABASE}{server.admins.login.database}", SHARED_MARK]
