"""The pools that the advisor sizes: open pools of this process, and tenants with load on nodes.

A tenant has one size for all places. So a pool that is open here and also has load on nodes is one
pool.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.control.nodes.node_loads import NodeLoads
from app.control.nodes.tenant_load import NodeTenantLoad
from app.domain.nodes.load_reading import LoadReading
from app.domain.pool import NO_CONNECTIONS, PoolMetrics, PoolSize, PoolState
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.servers.server import Server

# After this many seconds without a change, a client or a connection, a tenant on nodes gets no
# advice.
_FORGOTTEN_AFTER = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisedPool:
    """A pool in all its places: in this process and on nodes.

    Attributes:
        size: its size over all places.
        state: its state here; if it is only on nodes, paused or ready.
        pool: the pool in this process; None while it is not open here.
        load, reading: its load on nodes; None while it is on no node.
        idle_places: connections of its size at places without callers, see `PoolObservation`.
    """

    pool_id: str
    server: Server
    size: PoolSize
    state: PoolState
    pool: Pool | None
    load: NodeTenantLoad | None
    reading: LoadReading | None
    idle_places: int

    @property
    def is_closing(self) -> bool:
        """Whether it takes no more leases."""
        return self.pool is not None and self.pool.is_closing

    def note_warm_size(self, surplus_age: float | None, warm_size: int) -> None:
        """Set which idle connections to keep open here; on nodes, the pooler decides."""
        if self.pool is not None:
            self.pool.keep_warm(warm_size, surplus_age)

    @property
    def metrics(self) -> PoolMetrics:
        """Its gauges, summed over all places."""
        here = self.pool.metrics if self.pool else NO_CONNECTIONS
        return PoolMetrics.total((here, self.reading.metrics)) if self.reading else here


class AdvisedPools:
    def __init__(
        self, manager: TenantPoolManager, loads: NodeLoads, *, idle_places: Callable[[str], int]
    ) -> None:
        self._manager = manager
        self._loads = loads
        self._idle_places = idle_places

    def __iter__(self) -> Iterator[AdvisedPool]:
        """The pools that are open here, then those that are only on nodes."""
        for pool in list(self._manager.pools()):
            yield self._of(pool)
        for name, _ in self._loads.active(self._loads.now - _FORGOTTEN_AFTER):
            if self._manager.find(name) is None and (found := self.find(name)) is not None:
                yield found

    def is_on_nodes(self, tenant: str) -> bool:
        """Whether a node has reported *tenant*."""
        return self._loads.find(tenant) is not None

    def find(self, pool_id: str) -> AdvisedPool | None:
        """The pool with this id; None if it is neither open here nor on a node."""
        if (pool := self._manager.find(pool_id)) is not None:
            return self._of(pool)
        state, load = self._manager.tenants.get(pool_id), self._loads.find(pool_id)
        if state is None or load is None:
            return None
        spec, desired = state.tenant.spec, self._manager.desired.get(pool_id)
        server = self._manager.servers.get(spec.server)
        if server is None:
            return None
        is_paused = desired is not None and desired.paused
        return AdvisedPool(
            pool_id=pool_id,
            server=server,
            size=self._manager.desired.size(pool_id, spec.strategy),
            state=PoolState.PAUSED if is_paused else PoolState.READY,
            pool=None,
            load=load,
            reading=self._loads.reading(pool_id),
            idle_places=self._idle_places(pool_id),
        )

    def _of(self, pool: Pool) -> AdvisedPool:
        return AdvisedPool(
            pool_id=pool.pool_id,
            server=pool.server,
            size=pool.size,
            state=pool.state,
            pool=pool,
            load=self._loads.find(pool.pool_id),
            reading=self._loads.reading(pool.pool_id),
            idle_places=self._idle_places(pool.pool_id),
        )
