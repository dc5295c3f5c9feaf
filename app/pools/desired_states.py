"""What operators want of pools, and what nodes leave of it to this process."""

from collections.abc import Callable, Mapping

from app.domain.desired_pool import DesiredPool
from app.domain.pool import PoolConfig, PoolSize
from app.domain.tenant import PoolStrategy, Tenant, TenantSpec


class DesiredStates(dict[str, DesiredPool]):
    """The desired states of all pools that have one, by the pool's id; a pool may be closed."""

    def __init__(self, configs: Mapping[PoolStrategy, PoolConfig]) -> None:
        """Know no desired state yet; *configs* has the sizes of pools without one."""
        super().__init__()
        self._configs = configs
        self._nodes_of: Callable[[TenantSpec], int] = lambda _: 0
        self.most_here: Callable[[str], int | None] = lambda _: None
        self._size_in_force: Callable[[str], int] = lambda _: 0

    def put(self, desired: DesiredPool) -> None:
        """Set a pool's desired state; the pool gets it when it opens next."""
        self[desired.pool_id] = desired

    def forget(self, pool_id: str) -> None:
        """Forget a pool's desired state; an open pool keeps its present one until it closes."""
        self.pop(pool_id, None)

    def size(self, pool_id: str, strategy: PoolStrategy) -> PoolSize:
        """A pool's desired size, or its strategy's default."""
        desired = self.get(pool_id)
        return desired.size if desired else self._configs[strategy].default_size

    def is_paused(self, pool_id: str) -> bool:
        desired = self.get(pool_id)
        return desired is not None and desired.paused

    def share(
        self,
        *,
        nodes_of: Callable[[TenantSpec], int],
        most_here: Callable[[str], int | None],
        size_in_force: Callable[[str], int],
    ) -> None:
        """From now on, let nodes have parts of the tenants' sizes.

        Args:
            nodes_of: the number of nodes that may open connections of a tenant.
            most_here: the most connections of a pool in this process; None: its whole size.
            size_in_force: the largest size of a pool that may still be in force here or on a node.
        """
        self._nodes_of, self.most_here = nodes_of, most_here
        self._size_in_force = size_in_force

    def is_on_nodes(self, tenant: Tenant) -> bool:
        """Whether nodes may open connections of a tenant."""
        return tenant.is_usable and self._nodes_of(tenant.spec) > 0

    def most_connections(self, spec: TenantSpec) -> int:
        """The most connections that a tenant's role may have open, here and on all nodes.

        The connections of a killed pooler may exist for a moment beside their replacements.
        """
        size = self.size(spec.pool_id, spec.strategy).max_size
        most = max(size, self._size_in_force(spec.pool_id))
        nodes = self._nodes_of(spec)
        return 2 * max(most, nodes + 1) if nodes else most
