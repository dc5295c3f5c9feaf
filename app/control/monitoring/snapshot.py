"""What the whole service looked like at one moment: values that nothing changes any more.

Dashboards, metrics and streams are all served from one of these; `snapshots.py` takes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.isolation import Severity
from app.domain.pool import PoolSize, PoolState, PoolStats
from app.domain.tenant import PoolStrategy, TenantSpec
from app.pools.eviction import EvictionReason
from app.pools.leak_detection import LeakSuspect
from app.pools.metrics import Totals
from app.pools.server import ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """An open pool.

    Attributes:
        mark: whatever the rest depends on; while it is the same, so is the row.
        measured_at: when the percentiles were worked out, in monotonic seconds.
        size: the sizes in force.
        desired, paused, generation: what is wanted of it.
        tenants: how many it serves.
        suspects: leases held beyond the threshold, oldest first.
    """

    inputs: tuple[object, ...]
    measured_at: float
    pool_id: str
    server: str
    strategy: PoolStrategy
    state: PoolState
    size: PoolSize
    desired: PoolSize
    paused: bool
    generation: int
    tenants: int
    stats: PoolStats
    access_count: int
    suspects: tuple[LeakSuspect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSnapshot:
    """A tenant, whether or not its pool is open.

    Attributes:
        mark, measured_at: as a pool's.
        pool_state: of the pool that serves it.
        max_size: most connections it may have: its own limit within a shared pool, or the pool's.
    """

    inputs: tuple[object, ...]
    measured_at: float
    spec: TenantSpec
    pool_state: PoolState
    max_size: int
    stats: PoolStats


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSnapshot:
    """One server's connection budget, and what is used of it."""

    name: str
    state: ServerState
    max_connections: int | None
    budget: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole service.

    Attributes:
        sequence: grows with each snapshot, from 1.
        at: when it was begun, in monotonic seconds; `as_of` by the wall's clock.
        pools, tenants: by id, in its order.
        totals: by server and strategy since the service started; none ever falls.
        findings: how many of the isolation checks failed.
        loop_lag: how late the event loop was at the last look, and at worst lately, in seconds.
        catalog_available: whether the catalog was reached when it was last used.
    """

    sequence: int
    at: float
    as_of: datetime
    pools: Mapping[str, PoolSnapshot]
    tenants: Mapping[str, TenantSnapshot]
    totals: Totals
    servers: tuple[ServerSnapshot, ...]
    evictions: Mapping[EvictionReason, int]
    findings: Mapping[tuple[str, PoolStrategy, Severity], int]
    loop_lag: tuple[float, float]
    catalog_available: bool

    def tenants_of(self, only: Collection[str] | None) -> Iterable[TenantSnapshot]:
        """All tenants, or those of *only* these that exist, by id."""
        if only is None:
            return self.tenants.values()
        return [self.tenants[name] for name in sorted(only) if name in self.tenants]

    def pools_of(self, only: Collection[str] | None) -> Iterable[PoolSnapshot]:
        """All open pools, or those that serve one of *only* these tenants, by id."""
        if only is None:
            return self.pools.values()
        ids = {row.spec.pool_id for row in self.tenants_of(only)}
        return [self.pools[pool_id] for pool_id in sorted(ids) if pool_id in self.pools]
