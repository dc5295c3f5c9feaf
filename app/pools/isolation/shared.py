"""The shared strategy: one role and one pool a server, the tenant's context set for each lease.

It guards trusted SQL against forgetting a WHERE, through row-level security on
`current_setting('app.tenant_id', true)`; it does not hold against hostile SQL.
"""

from __future__ import annotations

from app.domain.desired_state import Tenant
from app.domain.tenant import TenantSpec
from app.pools.driver import Login
from app.pools.isolation.credentials import Credentials
from app.pools.isolation.login import login_as
from app.pools.isolation.objects import DatabaseObjects
from app.pools.isolation.strategy import ADVISORY_UNLOCK
from app.pools.server import Server

SHARED_ROLE = "poolkeeper_shared"
_MARK = "poolkeeper shared role"
_DEFAULT_PATH = '"$user", public'

# Everything is named in full, for the search_path may be the borrower's.
_NAMED = "pg_catalog.current_setting('app.tenant_id', true)"
_IS_STILL = f"coalesce({_NAMED} OPERATOR(pg_catalog.=) $1, false)"
_PROOF = f"SELECT 1 OPERATOR(pg_catalog./) {_IS_STILL}::pg_catalog.int4"


class SharedIsolation:
    """Every tenant logs in as one role that owns nothing."""

    def __init__(self, credentials: Credentials) -> None:
        """Derive the role's password with *credentials*."""
        self._credentials = credentials

    def role(self, spec: TenantSpec) -> str:  # noqa: ARG002 - every tenant shares one role
        """The shared role."""
        return SHARED_ROLE

    def database(self, server: Server, spec: TenantSpec) -> str:  # noqa: ARG002 - same
        """The server's own database."""
        return server.admin_login.database

    def login(self, server: Server, spec: TenantSpec) -> Login:
        """The shared role, in the server's own database, with that database's search_path."""
        path = server.limits.search_path if server.limits else None
        return login_as(
            server,
            SHARED_ROLE,
            self._credentials.password(server.name, SHARED_ROLE),
            pool_id=spec.pool_id,
            # Temporary tables, which it may not make, are looked for last of all.
            search_path=f"{path or _DEFAULT_PATH}, pg_temp",
            settings={"app.tenant_id": ""},
        )

    def connection_limit(self, max_size: int) -> int:  # noqa: ARG002 - the budget is its limit
        """None: the role is nobody's own, and a limit reached would stop all its tenants."""
        return -1

    def session_setup(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the same for everybody
        """Prepare the two queries of every lease.

        To parse and plan them anew would be a quarter of its transaction.
        """
        return (
            f"PREPARE poolkeeper_proof(pg_catalog.text) AS {_PROOF}; "
            f"PREPARE poolkeeper_unlock AS {ADVISORY_UNLOCK}"
        )

    def advisory_unlock(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the same for everybody
        """Run what was prepared for it."""
        return "EXECUTE poolkeeper_unlock"

    def context_setup(self, spec: TenantSpec) -> str:
        """Name the tenant until the transaction ends; a tenant id needs no escape in a literal."""
        return f"SET LOCAL app.tenant_id = '{spec.id}'"

    def context_check(self, spec: TenantSpec) -> str:
        """Divide by zero if another tenant, or none, is named by now.

        It fails too if somebody deallocated what was prepared.
        """
        return f"EXECUTE poolkeeper_proof('{spec.id}')"

    async def provision(
        self,
        server: Server,
        tenant: Tenant,  # noqa: ARG002 - every tenant shares one role
        *,
        adopt: bool,
        max_size: int | None = None,  # noqa: ARG002 - see connection_limit
    ) -> list[str]:
        """Create the shared role, and close the database to everybody else."""
        database = server.admin_login.database
        async with server.admin() as connection, connection.transaction():
            objects = DatabaseObjects(connection)
            verifier = self._credentials.verifier(server.name, SHARED_ROLE)
            await objects.put_login_role(SHARED_ROLE, verifier, mark=_MARK, adopt=adopt)
            await objects.execute("GRANT CONNECT ON DATABASE %I TO %I", database, SHARED_ROLE)
            await objects.revoke_from_public(database)
            await objects.grant_usage_of_public(SHARED_ROLE)
        return [f"role {SHARED_ROLE}"]

    async def rotate_password(self, server: Server, tenant: Tenant, version: int) -> None:  # noqa: ARG002
        """Give the shared role a new password; all its tenants'."""
        verifier = self._credentials.verifier(server.name, SHARED_ROLE, version)
        async with server.admin() as connection, connection.transaction():
            await DatabaseObjects(connection).put_login_role(
                SHARED_ROLE, verifier, mark=_MARK, adopt=False
            )

    async def disable_login(self, server: Server, tenant: Tenant) -> None:
        """Nothing: the role serves the others."""
