"""The known tenants, and how many a shared pool serves."""

from collections import Counter
from collections.abc import Mapping

from app.domain.errors import TenantDeleting, TenantNotFound
from app.domain.tenant import Tenant, shared_pool_id
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState
from app.pools.totals import CounterTotals


class KnownTenants(dict[str, TenantState]):
    """The states of all known tenants by id; `put` and `forget` alone change them."""

    def __init__(self, servers: Mapping[str, Server], totals: CounterTotals) -> None:
        """Know no tenant yet; *totals* creates the recorders of tenants on *servers*."""
        super().__init__()
        self._servers = servers
        self._totals = totals
        # How many tenants each shared pool serves.
        self._served: Counter[str] = Counter()

    def put(self, tenant: Tenant) -> TenantState:
        """Add a tenant, or update it; its counters continue."""
        spec = tenant.spec
        state = self.get(spec.id)
        if state is None:
            # A server that is no longer in the settings has no contenders.
            server = self._servers.get(spec.server)
            state = self[spec.id] = TenantState(
                tenant,
                self._totals.recorder_for(spec),
                server.budget.contenders if server else None,
            )
            if spec.is_shared:
                self._served[spec.pool_id] += 1
        state.update(tenant)
        return state

    def forget(self, tenant_id: str) -> None:
        """Forget a tenant whose pool is closed."""
        state = self.pop(tenant_id, None)
        if state is not None:
            if state.tenant.spec.is_shared:
                self._served[state.tenant.spec.pool_id] -= 1
            self._totals.add_deleted(state)

    def state(self, tenant_id: str) -> TenantState:
        """The state of a known tenant.

        Raises:
            TenantNotFound: there is no such tenant.
        """
        state = self.get(tenant_id)
        if state is None:
            raise TenantNotFound(f"There is no tenant {tenant_id}.")
        return state

    def present(self, earlier: TenantState) -> TenantState:
        """The present state of a tenant that may have been deleted and created again.

        Raises:
            TenantDeleting: it was deleted; a later one of its name has another pool.
        """
        before = earlier.tenant.spec
        found = self.get(before.id)
        if found is None or found.tenant.spec.pool_id != before.pool_id:
            raise TenantDeleting(f"Tenant {before.id} was deleted meanwhile.")
        return found

    def of_pool(self, pool_id: str) -> TenantState | None:
        """The state of a pool's tenant; for a shared pool, of one of its provisioned tenants."""
        state = self.get(pool_id)
        if state is not None:
            return state
        users = (one for one in self.values() if one.tenant.spec.pool_id == pool_id)
        return next((one for one in users if one.tenant.provisioned_at is not None), None)

    def count(self, pool_id: str) -> int:
        """How many tenants a pool serves."""
        own = self.get(pool_id)
        return 1 if own and not own.tenant.spec.is_shared else self._served[pool_id]

    def server_of_pool(self, pool_id: str) -> str | None:
        """The name of a pool's server, open or not; None if no tenant uses the pool any more."""
        state = self.get(pool_id)
        if state is not None:
            return state.tenant.spec.server
        return next((name for name in self._servers if shared_pool_id(name) == pool_id), None)
