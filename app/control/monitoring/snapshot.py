"""Snapshots: the state of the whole service at one moment; they never change.

Dashboards, metrics and streams are served from snapshots. Each poll publishes one. Between two
polls, a request takes a new one if the latest is older than a second or something has changed
since: clients read their own writes.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from time import monotonic

from app.catalog.catalog import Catalog
from app.control.monitoring.isolation_audit import findings_of
from app.control.nodes.fleet import Fleet
from app.control.time_slices import TimeSlices
from app.domain.counters import Counters
from app.domain.desired_pool import Pause
from app.domain.eviction import EvictionReason
from app.domain.isolation_checks import Severity
from app.domain.pool import PoolMetrics, PoolSize, PoolState, PoolStats
from app.domain.server_state import ServerState
from app.domain.tenant import PoolStrategy, TenantSpec
from app.domain.wait import Wait
from app.pools.event_loop_lag import EventLoopLag
from app.pools.leak_detection import LeakSuspect, leak_suspects
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState
from app.pools.totals import Totals

MAX_AGE_SECONDS = 1.0
# After a snapshot on demand, the next one waits for this many times the duration of taking it.
_REST_FACTOR = 4
# Percentiles forget in steps of a tenth of their window; they are reused until half of a step is
# over.
_REUSE_WINDOW_RATIO = 0.05
# Pools that are added up in one step.
_TOGETHER = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """A pool that is open, paused, or waiting to be opened for callers.

    Attributes:
        inputs: the values that the rest is computed from; while they are the same, so is the rest.
        measured_at: when the percentiles were computed, in monotonic seconds.
        size: the sizes in force.
        pause: when and by whom it was paused; None if it is not paused.
        tenants: number of tenants that it serves.
        leak_suspects: leases older than the threshold, oldest first.
    """

    inputs: tuple[object, ...]
    measured_at: float
    pool_id: str
    server: str
    strategy: PoolStrategy
    is_open: bool
    state: PoolState
    size: PoolSize
    desired: PoolSize
    pause: Pause | None
    generation: int
    tenants: int
    stats: PoolStats
    access_count: int
    leak_suspects: tuple[LeakSuspect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSnapshot:
    """A tenant, whether or not its pool is open.

    Attributes:
        inputs, measured_at: as in `PoolSnapshot`.
        max_size: the most connections that it may have: its own limit in a shared pool, or the
            pool's.
        wait: what its callers wait for, or its clients on nodes if no caller waits; None if nobody
            waits.
    """

    inputs: tuple[object, ...]
    measured_at: float
    spec: TenantSpec
    pool_state: PoolState
    max_size: int
    stats: PoolStats
    wait: Wait | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSnapshot:
    """A server's connection budget, and its use.

    Attributes:
        lost: used connections that broke, but that Postgres may still have.
        nodes, nodes_open: connections of the budget that belong to nodes, and those they have open.
        active: leased connections.
    """

    name: str
    state: ServerState
    max_connections: int | None
    budget: int
    used: int
    lost: int
    nodes: int
    nodes_open: int
    active: int
    contended: bool
    read_only: bool | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole service.

    Attributes:
        sequence: grows with each snapshot, from 1.
        at: when it was started, in monotonic seconds; `as_of`: by the wall clock.
        pools: open pools by id, sorted by it.
        closed: pools that are not open, but paused, or awaited by callers here or on nodes; sorted
            likewise.
        tenants: tenants by id; sorted likewise.
        waiting_on_nodes: clients that wait on nodes, by tenant.
        totals: by server and strategy since the service started; they never fall.
        service: all pools together; the percentiles are the worst pool's.
        findings: number of failed isolation checks.
        loop_lag: event loop lag at the last measurement, and its recent maximum, in seconds.
        catalog_available: whether the catalog was reachable when it was last used.
    """

    sequence: int
    at: float
    as_of: datetime
    pools: Mapping[str, PoolSnapshot]
    closed: Mapping[str, PoolSnapshot]
    tenants: Mapping[str, TenantSnapshot]
    waiting_on_nodes: Mapping[str, int]
    totals: Totals
    service: PoolStats
    servers: tuple[ServerSnapshot, ...]
    evictions: Mapping[EvictionReason, int]
    findings: Mapping[tuple[str, PoolStrategy, Severity], int]
    loop_lag: tuple[float, float]
    catalog_available: bool

    @property
    def is_fresh(self) -> bool:
        """Whether it is younger than a second."""
        return monotonic() - self.at < MAX_AGE_SECONDS

    def tenants_of(self, only: Collection[str] | None) -> Collection[TenantSnapshot]:
        """All tenants, or those of *only* that exist, by id."""
        if only is None:
            return self.tenants.values()
        return [self.tenants[name] for name in sorted(only) if name in self.tenants]

    def pools_of(self, only: Collection[str] | None) -> Iterable[PoolSnapshot]:
        """All its pools, or those that serve a tenant of *only*."""
        if only is None:
            return chain(self.pools.values(), self.closed.values())
        ids = {tenant.spec.pool_id for tenant in self.tenants_of(only)}
        return [
            found[pool_id]
            for found in (self.pools, self.closed)
            for pool_id in ids
            if pool_id in found
        ]


class Snapshots:
    """Takes snapshots, one at a time; each poll publishes one."""

    def __init__(
        self, manager: TenantPoolManager, fleet: Fleet, catalog: Catalog, lag: EventLoopLag
    ) -> None:
        self._manager = manager
        self._fleet = fleet
        self._catalog = catalog
        self._lag = lag
        self._lock = asyncio.Lock()
        self._changes = 0
        self._changes_seen = 0
        self._rest_until = 0.0
        self._publication = asyncio.Event()
        self.latest: Snapshot | None = None
        self.published: Snapshot | None = None
        self.is_closed = False

    def invalidate(self) -> None:
        """Note a change that the latest snapshot does not show."""
        self._changes += 1

    @property
    def fresh(self) -> Snapshot | None:
        """The latest snapshot, if a new one would show nothing more; else None."""
        latest = self.latest
        if latest is None or self._changes_seen != self._changes:
            return None
        return latest if latest.is_fresh else None

    async def current(self) -> Snapshot:
        """Return a snapshot that shows all changes made before this call."""
        changes = self._changes
        if (fresh := self.fresh) is not None:
            return fresh
        async with self._lock:
            latest = self.latest
            if latest is not None and self._changes_seen >= changes and latest.is_fresh:
                return latest
            await asyncio.sleep(max(0.0, self._rest_until - monotonic()))
            return await self._take()

    async def publish(self) -> Snapshot:
        """Take a snapshot, and give it to all callers of `wait_published`."""
        async with self._lock:
            self.published = await self._take()
        self._wake()
        return self.published

    async def wait_published(self, after: int) -> Snapshot | None:
        """Wait for a published snapshot with a sequence above *after*; None once closed."""
        while not self.is_closed and (self.published is None or self.published.sequence <= after):
            await self._publication.wait()
        return None if self.is_closed else self.published

    def close(self) -> None:
        """End every `wait_published`."""
        self.is_closed = True
        self._wake()

    def _wake(self) -> None:
        waited_for, self._publication = self._publication, asyncio.Event()
        waited_for.set()

    async def _take(self) -> Snapshot:
        builder = _SnapshotBuilder(self._manager, self._fleet, self.latest)
        changes, slices = self._changes, TimeSlices()
        for _ in builder.steps():
            await slices.end_step()
        await slices.end()
        self.latest = builder.snapshot(self._lag, catalog_available=self._catalog.available)
        self._changes_seen = changes
        self._rest_until = monotonic() + min(_REST_FACTOR * slices.worked, MAX_AGE_SECONDS)
        return self.latest


class _SnapshotBuilder:
    """Builds a snapshot; pools and tenants that did not change are reused from *before*."""

    def __init__(
        self,
        manager: TenantPoolManager,
        fleet: Fleet,
        before: Snapshot | None,
    ) -> None:
        self._manager = manager
        self._fleet = fleet
        self._waiting_on_nodes = fleet.loads.waiting()
        self._before = before
        self._at = monotonic()
        self._as_of = datetime.now(UTC)
        self._pools: dict[str, PoolSnapshot] = {}
        self._closed: dict[str, PoolSnapshot] = {}
        self._tenants: dict[str, TenantSnapshot] = {}
        self._parts: list[PoolStats] = []
        self._active: Counter[str] = Counter()  # connections on lease, by server
        self._findings: Counter[tuple[str, PoolStrategy, Severity]] = Counter()
        # All at once: a tenant that is deleted while the rest is built is counted exactly once.
        self._totals = manager.counter_totals.totals()
        self._states = list(manager.tenants.values())
        self._open = list(manager.pools())
        paused = [each.pool_id for each in manager.desired.values() if each.pause]
        self._maybe_closed = sorted({*paused, *manager.awaited_pools, *self._waiting_on_nodes})

    def steps(self) -> Iterator[None]:
        """Build it in short steps."""
        pools = self._before.pools if self._before else {}
        for pool in self._open:
            if pool.state is not PoolState.CLOSED:
                before = pools.get(pool.pool_id)
                shown = snapshot_pool(self._manager, pool, at=self._at, before=before)
                self._pools[pool.pool_id] = shown
                self._active[shown.server] += shown.stats.metrics.active_connections
            yield
        closed = self._before.closed if self._before else {}
        for pool_id in self._maybe_closed:
            state = self._manager.tenants.of_pool(pool_id)
            if pool_id not in self._pools and state is not None:
                self._closed[pool_id] = snapshot_pool(
                    self._manager, state, at=self._at, before=closed.get(pool_id)
                )
            yield
        stats = [pool.stats for pool in self._pools.values()]
        for first in range(0, len(stats), _TOGETHER):
            together = stats[first : first + _TOGETHER]
            self._parts.append(PoolStats.total(together, Counters()))
            yield
        tenants = self._before.tenants if self._before else {}
        for state in self._states:
            name = state.tenant.spec.id
            self._tenants[name] = self._tenant(state, tenants.get(name))
            self._totals.add(state)
            yield
        for found in findings_of(self._manager):
            if found is not None:
                spec, finding = found
                self._findings[spec.server, spec.strategy, finding.severity] += 1
            yield
        # They are already nearly in order, so this is quick.
        self._pools = dict(sorted(self._pools.items()))
        yield
        self._tenants = dict(sorted(self._tenants.items()))

    def snapshot(self, lag: EventLoopLag, *, catalog_available: bool) -> Snapshot:
        manager, before = self._manager, self._before
        self._totals.complete(before.totals if before else None)
        counters = sum(self._totals.counters.values(), start=Counters())
        closed = PoolMetrics.total(each.stats.metrics for each in self._closed.values())
        parts = [*self._parts, PoolStats(counters=counters, metrics=closed)]
        return Snapshot(
            sequence=1 if before is None else before.sequence + 1,
            at=self._at,
            as_of=self._as_of,
            pools=self._pools,
            closed=self._closed,
            tenants=self._tenants,
            waiting_on_nodes=self._waiting_on_nodes,
            totals=self._totals,
            service=PoolStats.total(parts, counters),
            servers=tuple(
                ServerSnapshot(
                    name=name,
                    state=server.state,
                    max_connections=server.limits.max_connections if server.limits else None,
                    budget=server.limit,
                    used=server.used,
                    lost=server.lost,
                    nodes=server.on_nodes,
                    nodes_open=self._fleet.open_on(name),
                    active=self._active[name],
                    contended=server.is_contended,
                    read_only=server.limits.read_only if server.limits else None,
                    last_error=server.last_error,
                )
                for name, server in sorted(manager.servers.items())
            ),
            evictions=Counter(manager.evictions),
            findings=self._findings,
            loop_lag=(lag.latest, lag.worst),
            catalog_available=catalog_available,
        )

    def _tenant(self, state: TenantState, before: TenantSnapshot | None) -> TenantSnapshot:
        spec = state.tenant.spec
        pool = self._pools.get(spec.pool_id)
        own = pool if pool is not None and not spec.is_shared else None
        closed = self._closed.get(spec.pool_id)
        shown = pool or closed
        pool_state = PoolState.CLOSED if shown is None else shown.state
        size = pool.size if pool else self._manager.desired.size(spec.pool_id, spec.strategy)
        max_size = spec.usable(size.max_size)
        recorder, metrics = state.recorder, state.metrics
        if closed is not None and not spec.is_shared:
            metrics = metrics.with_waiting(closed.stats.metrics.waiting_requests)
        measured = own.stats if own else (recorder.counters, metrics)
        waiting = (own.stats.metrics if own else metrics).waiting_requests
        wait = self._manager.wait_of(state) if waiting else None
        if wait is None and spec.id in self._waiting_on_nodes:
            wait = self._fleet.wait_of(spec)
        inputs = (spec, pool_state, max_size, measured, wait)
        if before is not None and before.inputs == inputs and _is_current(before, self._at):
            return before
        return TenantSnapshot(
            inputs=inputs,
            measured_at=own.measured_at if own else self._at,
            spec=spec,
            pool_state=pool_state,
            max_size=max_size,
            stats=own.stats if own else recorder.stats(metrics, monotonic()),
            wait=wait,
        )


def snapshot_pool(
    manager: TenantPoolManager,
    of: Pool | TenantState,
    *,
    at: float,
    before: PoolSnapshot | None = None,
) -> PoolSnapshot:
    """Take a snapshot of a pool; reuse *before* if nothing has changed.

    Args:
        of: the pool; while it is not open, one of its tenants.
        at: the present time, in monotonic seconds.
    """
    if isinstance(of, Pool):
        pool, pool_id, recorder = of, of.pool_id, of.recorder
        server, strategy = of.server.name, of.config.strategy
    else:
        spec = of.tenant.spec
        pool, pool_id, recorder = None, spec.pool_id, manager.recorder(of)
        server, strategy = spec.server, spec.strategy
    metrics, desired = manager.pool_metrics(pool_id), manager.desired.get(pool_id)
    wanted = manager.desired.size(pool_id, strategy)
    state = manager.pool_state(pool_id)
    size = pool.size if pool else wanted
    tenants = manager.tenants.count(pool_id)
    access_count = manager.access_count(pool) if pool else 0
    suspects = tuple(leak_suspects(pool, at)) if pool and metrics.active_connections else ()
    inputs = (
        *(recorder.counters, recorder.created_at, state, size, desired, wanted),
        *(access_count, tenants, suspects, metrics),
    )
    if before is not None and before.inputs == inputs and _is_current(before, at):
        return before
    return PoolSnapshot(
        inputs=inputs,
        measured_at=at,
        pool_id=pool_id,
        server=server,
        strategy=strategy,
        is_open=pool is not None,
        state=state,
        size=size,
        desired=wanted,
        pause=desired.pause if desired else None,
        generation=desired.generation if desired else 0,
        tenants=tenants,
        stats=recorder.stats(metrics, monotonic()),
        access_count=access_count,
        leak_suspects=suspects,
    )


def _is_current(reused: PoolSnapshot | TenantSnapshot, at: float) -> bool:
    """Whether its percentiles are still valid."""
    stats = reused.stats
    if at - reused.measured_at < _REUSE_WINDOW_RATIO * stats.window_seconds:
        return True
    return all(each.p50_ms is None for each in (stats.wait, stats.hold, stats.connect))
