"""The shared strategy: one role and one pool a server, the tenant's context set for each lease.

It guards trusted SQL against forgetting a WHERE, through row-level security on
`current_setting('app.tenant_id', true)`; it does not hold against hostile SQL.
"""

from __future__ import annotations

from app.domain.desired import Tenant
from app.domain.tenant import TenantSpec
from app.pools.driver import Login
from app.pools.isolation.credentials import Credentials
from app.pools.isolation.login import login_as
from app.pools.isolation.objects import Objects
from app.pools.server import Server

SHARED_ROLE = "poolkeeper_shared"
_NAMED = "current_setting('app.tenant_id', true)"
_MARK = "poolkeeper shared role"


class Shared:
    """Every tenant logs in as one role that owns nothing."""

    def __init__(self, credentials: Credentials) -> None:
        """Derive the role's password with *credentials*."""
        self._credentials = credentials

    def login(self, server: Server, spec: TenantSpec) -> Login:
        """The shared role, in the server's own database."""
        password = self._credentials.password(server.name, SHARED_ROLE)
        return login_as(server, SHARED_ROLE, password, pool_id=spec.pool_id)

    def context(self, spec: TenantSpec) -> str:
        """Name the tenant until the transaction ends; a tenant id needs no escape in a literal."""
        return f"SET LOCAL app.tenant_id = '{spec.id}'"

    def proof(self, spec: TenantSpec) -> str:
        """Divide by zero if another tenant, or none, is named by now."""
        return f"SELECT 1 / ({_NAMED} IS NOT DISTINCT FROM '{spec.id}')::int"  # noqa: S608 - a slug

    async def provision(self, server: Server, tenant: Tenant, *, adopt: bool) -> list[str]:  # noqa: ARG002 - every tenant shares one role
        """Create the shared role."""
        async with server.admin() as connection, connection.transaction():
            objects = Objects(connection)
            verifier = self._credentials.verifier(server.name, SHARED_ROLE)
            await objects.login_role(SHARED_ROLE, verifier, mark=_MARK, adopt=adopt)
            await objects.run(
                "GRANT CONNECT ON DATABASE %I TO %I", server.admin_login.database, SHARED_ROLE
            )
        return [f"role {SHARED_ROLE}"]

    async def retire(self, server: Server, tenant: Tenant) -> None:
        """Nothing: the role serves the others."""
