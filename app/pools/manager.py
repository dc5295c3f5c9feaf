"""The manager: tenant in, lease out. It finds, opens and evicts pools.

Opening is synchronous once there is room, so a tenant gets one pool even if many callers race for
it. `app.control` tells it what operators want (tenants, sizes); it stores nothing that must
survive.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Coroutine, Iterator, Mapping
from time import monotonic
from typing import Any, TypeVar

from app.domain.errors import (
    PoolDraining,
    ServerUnavailable,
    TenantDeleting,
)
from app.domain.eviction import Eviction, EvictionReason
from app.domain.isolation_level import IsolationLevel
from app.domain.pool import (
    NO_CONNECTIONS,
    PoolConfig,
    PoolMetrics,
    PoolSize,
    PoolState,
    PoolStats,
)
from app.domain.tenant import PoolStrategy, Tenant
from app.domain.wait import Use, Wait, WaitingTenant
from app.pools.borrower import Borrower
from app.pools.connector import Connectors
from app.pools.desired_states import DesiredStates
from app.pools.isolation import IsolationStrategy
from app.pools.known_tenants import KnownTenants
from app.pools.lease import DEFAULT_OPTIONS, Lease, LeaseOptions, Work
from app.pools.pool import Pool
from app.pools.recorder import Recorder
from app.pools.registry import PoolRegistry, SlotWaiter
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState
from app.pools.totals import CounterTotals

T = TypeVar("T")

# Evictions kept for the audit trail between two polls; more than one poll can miss.
_MOST_UNREPORTED = 10_000
_OPEN = frozenset({PoolState.INITIALIZING, PoolState.WARMING_UP, PoolState.READY})


class TenantPoolManager:
    def __init__(
        self,
        servers: Mapping[str, Server],
        configs: Mapping[PoolStrategy, PoolConfig],
        isolations: Mapping[PoolStrategy, IsolationStrategy],
        *,
        stats_window: float = 300.0,
    ) -> None:
        """Manage pools on *servers*; percentiles cover *stats_window* seconds."""
        self.servers = servers
        self.isolations = isolations
        self.connectors = Connectors(isolations)
        self.evictions: Counter[EvictionReason] = Counter()
        self._unreported: deque[Eviction] = deque(maxlen=_MOST_UNREPORTED)
        self._window = stats_window
        self.counter_totals = CounterTotals(stats_window)
        self.tenants = KnownTenants(servers, self.counter_totals)
        self.desired = DesiredStates(configs)
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._registries = {
            strategy: PoolRegistry(
                config,
                capacity=len(servers) if strategy is PoolStrategy.SHARED else config.max_pools,
                evict=self._close_evicted,
            )
            for strategy, config in configs.items()
        }

    # -- tenants -----------------------------------------------------------------------------

    def put_tenant(self, tenant: Tenant) -> TenantState:
        """Add a tenant, or update it; its counters continue."""
        tenant_state = self.tenants.put(tenant)
        pool = self.find(tenant.spec.pool_id)
        if pool is not None and tenant.deleting:
            pool.fail_waiters_of(tenant_state)
        elif pool is not None:
            pool.dispatch()
        return tenant_state

    def server(self, name: str) -> Server:
        """A declared server.

        Raises:
            ServerUnavailable: it is no longer in the settings.
        """
        server = self.servers.get(name)
        if server is None:
            raise ServerUnavailable(f"Server {name} is not declared any more.")
        return server

    # -- leases ------------------------------------------------------------------------------

    def lease(
        self,
        tenant_id: str,
        *,
        transaction: bool = True,
        read_only: bool = False,
        isolation_level: IsolationLevel | None = None,
        deferrable: bool = False,
        statement_timeout: float | None = None,
        timeout: float | None = None,
        work: Work | None = None,
        statement: str = "",
    ) -> Lease:
        """Borrow a connection: `async with manager.lease("acme") as connection:`.

        Args:
            tenant_id: who borrows.
            transaction: whether the lease is one transaction, committed at its end and rolled back
                on an error; False is only for tenants with a pool of their own.
            read_only: refuse writes.
            isolation_level, deferrable: properties of that transaction, see `LeaseOptions`.
            statement_timeout: seconds that one statement may take.
            timeout: seconds to wait for a connection; the strategy's acquire_timeout if None.
            work: work that runs by itself; None: the caller uses the connection.
            statement: the statement to run, if known; it is shown in the list of leases.

        Raises:
            TenantNotFound, TenantDeleting, NotProvisioned: the tenant cannot have a lease.
        """
        tenant_state = self.tenants.state(tenant_id)
        tenant = tenant_state.tenant
        tenant.check_usable()
        terms = DEFAULT_OPTIONS
        is_special = isolation_level is not None or deferrable
        if not transaction or read_only or is_special or statement_timeout is not None:
            terms = LeaseOptions(
                transaction=transaction,
                read_only=read_only,
                isolation_level=isolation_level,
                deferrable=deferrable,
                statement_timeout=statement_timeout,
            )
        strategy = tenant.spec.strategy
        return Lease(
            self,
            tenant_state,
            self.isolations[strategy],
            options=terms,
            timeout=self._registries[strategy].config.acquire_timeout
            if timeout is None
            else timeout,
            work=work,
            statement=statement,
        )

    def open_pool_of(self, tenant_state: TenantState) -> Pool | None:
        """The tenant's pool, counted as a use; None if it is not open or yields its slot."""
        self._refuse_when_closed()
        spec = tenant_state.tenant.spec
        self.server(spec.server)
        return self._registries[spec.strategy].use(spec.pool_id)

    async def open_pool(self, tenant_state: TenantState, timeout: float) -> Pool:
        """Return the tenant's pool, opening it if needed; raises what `pool_within` raises."""
        pool, _ = await self.pool_within(tenant_state, timeout)
        return pool

    async def pool_within(
        self, tenant_state: TenantState, timeout: float, borrower: Borrower | None = None
    ) -> tuple[Pool, float]:
        """Return the tenant's pool, opened if needed, and how long *borrower* waited for a slot.

        Raises:
            PoolLimitReached: the allowed number of pools stayed busy for *timeout* seconds.
        """
        if (pool := self.open_pool_of(tenant_state)) is not None:
            return pool, 0.0
        spec = tenant_state.tenant.spec
        registry = self._registries[spec.strategy]
        waited = await registry.wait_for_slot(tenant_state, timeout, borrower)
        self._refuse_when_closed()
        if self.tenants.get(spec.id) is not tenant_state or tenant_state.tenant.deleting:
            raise TenantDeleting(f"Tenant {spec.id} was deleted meanwhile.")
        return registry.find(spec.pool_id) or self._open(tenant_state, registry), waited

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise PoolDraining("The service is stopping.")

    def _open(self, tenant_state: TenantState, registry: PoolRegistry) -> Pool:
        spec = tenant_state.tenant.spec
        server = self.server(spec.server)
        pool = Pool(
            spec.pool_id,
            self.desired.size(spec.pool_id, spec.strategy),
            registry.config,
            connector=self.connectors.of(server, spec),
            recorder=self.recorder(tenant_state),
            owner=registry,
        )
        registry.add(pool)
        pool.limit_to(self.desired.most_here(spec.pool_id))
        pool.open()
        if self.desired.is_paused(spec.pool_id):
            pool.pause()
        return pool

    def recorder(self, tenant_state: TenantState) -> Recorder:
        """The recorder of the pool that serves a tenant."""
        spec = tenant_state.tenant.spec
        if spec.is_shared:
            return self.counter_totals.shared_recorder(spec.server)
        return tenant_state.recorder

    def resize(self, pool: Pool, size: PoolSize) -> None:
        """Change an open pool's size; a pool with a min_size is not evicted."""
        if bool(pool.size.min_size) is not bool(size.min_size):
            registry = self._registries[pool.config.strategy]
            (registry.pin if size.min_size else registry.unpin)(pool)
        pool.resize(size)

    def pool_state(self, pool_id: str) -> PoolState:
        """The state of a pool, open or not; a paused pool is paused in both cases.

        One that is open is unavailable while its server is.
        """
        pool = self.find(pool_id)
        if pool is not None:
            is_away = pool.state in _OPEN and not pool.server.is_available
            return PoolState.UNAVAILABLE if is_away else pool.state
        return PoolState.PAUSED if self.desired.is_paused(pool_id) else PoolState.CLOSED

    def config(self, strategy: PoolStrategy) -> PoolConfig:
        """The configuration of pools of *strategy*."""
        return self._registries[strategy].config

    # -- pools -------------------------------------------------------------------------------

    def find(self, pool_id: str) -> Pool | None:
        """The open pool of that id, or None; this does not count as a use."""
        for registry in self._registries.values():
            pool = registry.find(pool_id)
            if pool is not None:
                return pool
        return None

    def pools(self) -> Iterator[Pool]:
        """Every open pool; make a list of them before you await anything."""
        for registry in self._registries.values():
            yield from registry

    @property
    def active_pools(self) -> int:
        """Number of open pools."""
        return sum(len(registry) for registry in self._registries.values())

    def access_count(self, pool: Pool) -> int:
        """Number of leases that used *pool* since it was opened."""
        return self._registries[pool.config.strategy].access_count(pool.pool_id)

    async def evict(self, pool: Pool, reason: EvictionReason, deadline: float) -> Eviction:
        """Drain *pool*, cut the leases that still run after *deadline* seconds, and remove it.

        It continues if the caller is cancelled: a half drained pool would refuse callers for ever.
        """
        name = f"pool {pool.pool_id}: evict, {reason}"
        return await asyncio.shield(self._in_background(self._evict(pool, reason, deadline), name))

    async def _evict(self, pool: Pool, reason: EvictionReason, deadline: float) -> Eviction:
        registry = self._registries[pool.config.strategy]
        # Pinned, so that it is not evicted again while it drains.
        registry.pin(pool)
        closure = await pool.drain(deadline)
        if registry.remove(pool):
            self.evictions[reason] += 1
        return Eviction(pool_id=pool.pool_id, reason=reason, closed=closure.closed, cut=closure.cut)

    def expired(self) -> list[Pool]:
        """The pools that `evict_expired` would close now."""
        return [pool for registry in self._registries.values() for pool in registry.expired()]

    def evict_expired(self) -> Iterator[Eviction]:
        """Close every pool unused for longer than its idle timeout, one a step.

        Busy pools are never closed.
        """
        for registry in self._registries.values():
            for _ in registry.evict_expired():
                yield self._unreported.pop()

    def take_evictions(self) -> Iterator[Eviction]:
        """Return and forget the pools that were evicted since, for others or for being idle."""
        while self._unreported:
            yield self._unreported.popleft()

    def _close_evicted(self, pool: Pool, reason: EvictionReason) -> None:
        self.evictions[reason] += 1
        closed = pool.metrics.total_connections
        self._unreported.append(Eviction(pool_id=pool.pool_id, reason=reason, closed=closed))
        self._in_background(pool.drain(0), f"pool {pool.pool_id}: evict")

    def _in_background(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- numbers -----------------------------------------------------------------------------

    def tenant_stats(self, tenant_state: TenantState) -> PoolStats:
        """Statistics of a tenant, whether or not its pool is open."""
        return tenant_state.recorder.stats(self.tenant_metrics(tenant_state), monotonic())

    def tenant_metrics(self, tenant_state: TenantState) -> PoolMetrics:
        """The connections that a tenant holds, and its waiting callers."""
        spec = tenant_state.tenant.spec
        pool = self.find(spec.pool_id)
        metrics = tenant_state.metrics if pool is None or spec.is_shared else pool.metrics
        return metrics.with_waiting(len(self.slot_waiters(spec.pool_id)))

    def wait_of(self, tenant_state: TenantState) -> Wait:
        """What the tenant's waiting callers wait for; call it only if some wait."""
        spec = tenant_state.tenant.spec
        pool, server = self.find(spec.pool_id), self.server(spec.server)
        registry = self._registries[spec.strategy]
        awaits_slot = pool is None or bool(self.slot_waiters(spec.pool_id))
        return WaitingTenant(
            server=spec.server,
            is_available=server.is_available,
            last_error=server.last_error,
            login_error=self.connectors.refusal(spec),
            is_paused=self.pool_state(spec.pool_id) is PoolState.PAUSED,
            leases=Use(tenant_state.leased, spec.max_leases),
            pools=registry.slots if awaits_slot else None,
            pools_setting=registry.config.max_pools_setting,
            pool=Use(pool.metrics.active_connections, pool.most) if pool else Use(0, None),
            is_shared_with_nodes=pool is not None and pool.most < pool.size.max_size,
            budget=Use(server.budget.used, server.budget.limit),
            on_nodes=server.on_nodes,
        ).wait

    def pool_metrics(self, pool_id: str) -> PoolMetrics:
        """A pool's metrics, open or not; callers that wait for a slot for it count as waiting."""
        pool = self.find(pool_id)
        metrics = NO_CONNECTIONS if pool is None else pool.metrics
        return metrics.with_waiting(len(self.slot_waiters(pool_id)))

    def slot_waiters(self, pool_id: str) -> Collection[SlotWaiter]:
        """The callers that wait for a slot for a pool, in the order in which they came."""
        for registry in self._registries.values():
            if waiting := registry.waiting(pool_id):
                return waiting
        return ()

    @property
    def awaited_pools(self) -> list[str]:
        """The ids of the pools for which a caller waits for a slot."""
        return [pool_id for registry in self._registries.values() for pool_id in registry.awaited]

    def recently_active_tenants(self) -> Iterator[TenantState | None]:
        """Tenants that leased or waited within the statistics window.

        None for each other one, so that no step takes long.
        """
        since, awaited = monotonic() - self._window, frozenset(self.awaited_pools)
        for state in list(self.tenants.values()):
            is_active = state.is_active(since) or state.tenant.spec.pool_id in awaited
            yield state if is_active else None

    def connection_seconds(self, subject: str, now: float) -> float:
        """Connection-seconds of a tenant, or of all tenants of an open pool, so far.

        Running leases are included; 0 for a pool that is not open.
        """
        state = self.tenants.get(subject)
        if state is not None:
            return state.connection_seconds(now)
        pool = self.find(subject)
        if pool is None:
            return 0.0
        return pool.recorder.hold_seconds + pool.connections.leased_seconds(now)

    # -- end ---------------------------------------------------------------------------------

    async def close(self, deadline: float) -> None:
        """Close every pool; leases that last beyond *deadline* seconds are cut. Safe to call twice.

        It continues if the caller is cancelled.
        """
        self._closed = True
        for pool in list(self.pools()):
            self._in_background(pool.drain(deadline), f"pool {pool.pool_id}: close")
        await asyncio.gather(*map(asyncio.shield, self._tasks))
