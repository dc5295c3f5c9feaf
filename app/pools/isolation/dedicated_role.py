"""What per_tenant and per_database share: a session is the tenant's own, a lease a transaction."""

from __future__ import annotations

from app.domain.desired_state import Tenant
from app.domain.tenant import TenantSpec
from app.pools.isolation.objects import DatabaseObjects, mark_of
from app.pools.isolation.strategy import ADVISORY_UNLOCK, SPARE_CONNECTIONS
from app.pools.server import Server

# Only inside a lease's transaction is this setting a number: what follows COMMIT AND CHAIN finds
# the session's value. RESET ALL, which is the borrower's right, comes back to a number.
_MARK = "poolkeeper.lease"
_LEFT = f"SET {_MARK} = 'the transaction of the lease has ended'"


class DedicatedRoleIsolation:
    """A login role for each tenant."""

    settings = {_MARK: "1"}  # noqa: RUF012 - never changed

    def role(self, spec: TenantSpec) -> str:
        """The tenant's own role."""
        return spec.id.object_name

    def connection_limit(self, max_size: int) -> int:
        """A few more than its pool may open."""
        return max_size + SPARE_CONNECTIONS

    def session_setup(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the same for everybody
        """Let the session know that no lease has begun.

        No statement is prepared: what a tenant deallocates is its own business.
        """
        return _LEFT

    def context_setup(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the role is the context
        """Mark the transaction as the lease's."""
        return f"SET LOCAL {_MARK} = '1'"

    def context_check(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the role is the context
        """Fail in another transaction than the lease's, and in a failed one."""
        return f"SELECT pg_catalog.current_setting('{_MARK}')::pg_catalog.int4"

    def advisory_unlock(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the same for everybody
        """Give up the session's advisory locks."""
        return f"{_LEFT}; {ADVISORY_UNLOCK}"

    async def disable_login(self, server: Server, tenant: Tenant) -> None:
        """Take the role's login away."""
        async with server.admin() as connection:
            await DatabaseObjects(connection).disable_login(
                tenant.spec.id.object_name, mark=mark_of(tenant)
            )
