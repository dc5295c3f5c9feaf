"""The common part of per_tenant and per_database: a login role for each tenant.

The session belongs to the tenant, and a lease is one transaction in it.
"""

from app.domain.tenant import Tenant, TenantSpec
from app.pools.isolation.objects import ObjectFacts, disable_login, execute
from app.pools.isolation.strategy import ADVISORY_UNLOCK, IsolationStrategy
from app.pools.servers.server import Server

# Connections beyond the pool's: one that is replaced while it closes, and one for a person.
_SPARE_CONNECTIONS = 2

# Only inside a lease's transaction is this setting a number: after COMMIT AND CHAIN it has the
# session's value. RESET ALL, which the borrower may run, restores a number.
_LEASE = "poolkeeper.lease"
_LEASE_ENDED = f"SET {_LEASE} = 'the transaction of the lease has ended'"


class DedicatedRoleIsolation(IsolationStrategy):
    """Each tenant logs in as itself."""

    settings = {_LEASE: "1"}  # noqa: RUF012 - never changed

    def role(self, spec: TenantSpec) -> str:
        return spec.id.object_name

    def connection_limit(self, max_size: int) -> int:
        return max_size + _SPARE_CONNECTIONS

    def session_setup(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the same for every tenant
        """Prepare no statement, because the tenant could deallocate it."""
        return _LEASE_ENDED

    def context_setup(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the role is the context
        return f"SET LOCAL {_LEASE} = '1'"

    def context_check(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the role is the context
        """Fail in another transaction than the lease's, and in a failed one."""
        return f"SELECT pg_catalog.current_setting('{_LEASE}')::pg_catalog.int4"

    def advisory_unlock(self, spec: TenantSpec) -> str:  # noqa: ARG002 - the same for every tenant
        return f"{_LEASE_ENDED}; {ADVISORY_UNLOCK}"

    async def disable_login(
        self, server: Server, tenant: Tenant, *, fail_soon: bool = False
    ) -> None:
        name = self.role(tenant.spec)
        async with server.admin() as connection:
            facts = await ObjectFacts.read(connection, name, self.marks(server, tenant))
            if facts.role:
                await execute(connection, [disable_login(name)], fail_soon=fail_soon)
