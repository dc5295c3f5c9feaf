"""A pool in the API: its desired and its actual state.

It is read from memory only, so that it can be shown while the catalog is unreachable.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from time import monotonic
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.api.auth.principal import Principal
from app.api.http.field_types import Stale
from app.api.views.advice import AdviceView
from app.api.views.node import NodeEntryView
from app.api.views.wait import WaitView
from app.catalog.catalog import Catalog
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.monitoring.snapshot import PoolSnapshot, snapshot_pool
from app.control.nodes.fleet import Fleet
from app.domain.desired_pool import Pause
from app.domain.eviction import EvictionReason
from app.domain.pool import PoolMetrics, PoolState
from app.domain.recommendation import Recommendation
from app.domain.tenant import PoolStrategy
from app.domain.wait import Wait
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState


class DesiredSize(BaseModel):
    """A pool's desired state; the defaults where nothing was set."""

    min_size: int = Field(description="Connections that stay open when idle.", examples=[0])
    max_size: int = Field(description="Maximum number of connections.", examples=[5])
    warmup_size: int = Field(description="Connections opened when the pool opens.")
    paused: bool = Field(description="Whether the pool hands out no connections.", examples=[False])


class LeakSuspectView(BaseModel):
    """A lease held for so long that it may have leaked."""

    tenant: str = Field(examples=["acme"])
    task: str = Field(description="Name of the task that holds it.", examples=["Task-812"])
    taken_at: str = Field(
        description="Where it was taken: file and line.", examples=["/srv/app/orders.py:120"]
    )
    age_seconds: float = Field(examples=[75.2])
    pid: int = Field(description="Process ID of the connection's back-end.", examples=[4711])


class PauseView(BaseModel):
    """A pause of a pool."""

    since: datetime = Field(examples=["2026-11-20T09:12:34Z"])
    by: str = Field(description="The actor that paused it, as in its event.", examples=["ops"])

    @classmethod
    def of(cls, pause: Pause | None) -> Self | None:
        return cls(since=pause.since, by=pause.by) if pause else None


class PoolRecommendation(BaseModel):
    """The open recommendation for a pool's size, in short."""

    id: UUID = Field(examples=["3f2b8c1e-9d47-4c5e-8a70-6a1f0b2c3d4e"])
    new_size: int = Field(description="The recommended max_size.", examples=[12])
    reason: str = Field(
        examples=["At 41 leases/s × 150 ms, 5 connections cannot keep up; 12 make under 1 % wait"]
    )
    created_at: datetime = Field(
        description="When it was made; its reason describes that time.",
        examples=["2026-11-20T09:00:05Z"],
    )

    @classmethod
    def of(cls, found: Recommendation | None, principal: Principal) -> Self | None:
        """None if there is none that the principal can access."""
        if found is None or not principal.can_access(found.tenant):
            return None
        return cls(
            id=found.id,
            new_size=found.advice.new_size,
            reason=found.advice.reason,
            created_at=found.created_at,
        )


class _PoolNow(BaseModel):
    pool_id: str = Field(
        description="The tenant's ID, or `shared@` and the server's name.", examples=["acme"]
    )
    state: PoolState = Field(
        description="`closed` while it is neither open nor paused, `unavailable` while it is open "
        "and its server is away.",
        examples=["ready"],
    )
    pause: PauseView | None = Field(description="Null while it is not paused.", examples=[None])
    size: int = Field(description="Open connections.", examples=[3])
    idle: int = Field(description="Idle connections.")
    active: int = Field(description="Connections on lease.", examples=[2])
    waiting: int = Field(description="Callers waiting for a connection.", examples=[0])


class PoolSummary(_PoolNow):
    """A summary of a pool that is open, paused, or awaited by callers."""

    @classmethod
    def of(cls, manager: TenantPoolManager, pool_id: str) -> Self | None:
        """The pool with that id; None if it has just closed."""
        desired, metrics = manager.desired.get(pool_id), manager.pool_metrics(pool_id)
        pause, state = desired.pause if desired else None, manager.pool_state(pool_id)
        if state is PoolState.CLOSED and not metrics.waiting_requests:
            return None
        return cls(pool_id=pool_id, state=state, pause=PauseView.of(pause), **_connections(metrics))


class PoolView(_PoolNow):
    """A pool, open or not."""

    tenant: str | None = Field(
        description="The tenant it belongs to; null for a shared pool.", examples=["acme"]
    )
    tenants: int = Field(description="Number of tenants it serves that the key can access.")
    shared: bool = Field(examples=[False])
    strategy: PoolStrategy = Field(examples=["per_tenant"])
    server: str = Field(examples=["local"])
    open: bool = Field(description="Whether it is open; otherwise its next use opens it.")
    desired: DesiredSize
    access_count: int = Field(
        description="Callers that asked for a lease since the pool opened, whether or not they "
        "got one. The statistics count leases, since the service started.",
        examples=[1841],
    )
    waiting_on_nodes: int = Field(
        description="Clients that wait on nodes; `waiting` does not count them.", examples=[0]
    )
    wait_p99_ms: float | None = Field(
        description="99th percentile of the time callers waited, with or without success, within "
        "the statistics window.",
        examples=[0.4],
    )
    waits_for: WaitView | None = Field(
        description="What its callers wait for now, or its clients on nodes if no caller waits; "
        "null if nobody waits. Of a shared pool: the callers of the tenant in the path, and in "
        "lists those of the tenant that has the most waiting."
    )
    leak_suspects: list[LeakSuspectView] = Field(
        description="Leases held longer than the leak threshold, oldest first.", examples=[[]]
    )
    generation: int = Field(
        description="Version of the desired state, also the ETag; 0 while nothing was set."
    )
    stale: Stale
    recommendation: PoolRecommendation | None = Field(
        description="The open recommendation for its size; null if there is none.", examples=[None]
    )
    advice: AdviceView | None = Field(
        default=None,
        description="The advisor's latest advice, for this service and all nodes together; null "
        "until there is advice after the last resize, while the mode is `off`, and in lists.",
        examples=[None],
    )
    share: int | None = Field(
        default=None,
        description="What this service's own pool may have of `max_size` now; nodes have the rest. "
        "Null in lists.",
    )
    nodes: list[NodeEntryView] | None = Field(
        default=None,
        description="The tenant on each node that serves it, beside the numbers of this service's "
        "own pool; null in lists.",
    )

    @classmethod
    def of_snapshot(
        cls,
        pool: PoolSnapshot,
        principal: Principal,
        *,
        tenants: int,
        wait: Wait | None,
        waiting_on_nodes: int,
        recommendation: Recommendation | None,
        stale: bool,
    ) -> Self:
        """*tenants*: how many of its tenants the principal can access."""
        is_shared = pool.strategy is PoolStrategy.SHARED
        return cls(
            pool_id=pool.pool_id,
            tenant=None if is_shared else pool.pool_id,
            shared=is_shared,
            strategy=pool.strategy,
            server=pool.server,
            tenants=tenants,
            pause=PauseView.of(pool.pause),
            desired=DesiredSize(**asdict(pool.desired), paused=pool.pause is not None),
            generation=pool.generation,
            stale=stale,
            recommendation=PoolRecommendation.of(recommendation, principal),
            open=pool.is_open,
            state=pool.state,
            **_connections(pool.stats.metrics),
            access_count=pool.access_count,
            waiting_on_nodes=waiting_on_nodes,
            wait_p99_ms=pool.stats.wait.p99_ms,
            waits_for=WaitView.of(wait),
            leak_suspects=[
                LeakSuspectView(**asdict(suspect))
                for suspect in pool.leak_suspects
                if principal.can_access(suspect.tenant)
            ],
        )


class _PoolOperated(BaseModel):
    pool_id: str = Field(examples=["acme"])
    tenants: int = Field(description="Number of tenants that the pool serves.")


class PoolDrain(_PoolOperated):
    """A drain in progress."""

    state: PoolState = Field(examples=["draining"])
    deadline_seconds: float = Field(examples=[5.0])


class NodeRecycling(BaseModel):
    """What became of a tenant's connections on a node."""

    node: str = Field(examples=["edge"])
    recycled: bool = Field(
        description="Whether the node closes them: idle ones at once, others when their "
        "transaction ends. If false, it was not reached in time, and does so once it is; or its "
        "agent is of an earlier version that cannot.",
        examples=[True],
    )

    @classmethod
    def of(cls, nodes: Mapping[str, bool]) -> list[Self]:
        return [cls(node=node, recycled=each) for node, each in sorted(nodes.items())]


class PoolRecycling(_PoolOperated):
    """The result of recycling a pool."""

    connections: int = Field(
        description="Connections of this service's own pool that are replaced: idle ones at once, "
        "leased ones when they are returned.",
        examples=[3],
    )
    nodes: list[NodeRecycling] = Field(description="Each node that serves the tenant.")


class PoolCheck(_PoolOperated):
    """The result of testing a pool's idle connections."""

    tested: int = Field(examples=[2])
    failed: int = Field(
        description="Connections that failed the check and were closed.", examples=[0]
    )


class PoolEviction(_PoolOperated):
    """The result of evicting a pool."""

    reason: EvictionReason = Field(examples=["requested"])
    closed: int = Field(
        description="Connections of this service's own pool that were closed.", examples=[3]
    )
    cut: int = Field(description="Leases that were cut at the deadline.", examples=[0])
    nodes: list[NodeRecycling] = Field(description="Each node that serves the tenant.")


@dataclass(frozen=True, slots=True)
class PoolViews:
    """Shows single pools as they are now."""

    manager: TenantPoolManager
    catalog: Catalog
    advisor: AdvisorLoop
    fleet: Fleet

    def show(
        self, tenant: TenantState, principal: Principal, *, pool: Pool | None = None
    ) -> PoolView:
        """Show the pool that serves *tenant*, open or not; *pool* if known."""
        manager, spec = self.manager, tenant.tenant.spec
        pool = pool or manager.find(spec.pool_id)
        now = snapshot_pool(manager, pool or tenant, at=monotonic())
        mine = tenant.metrics if spec.is_shared else now.stats.metrics
        advice = self.advisor.latest_advice.get(spec.pool_id)
        share = self.fleet.sizes.here(spec.pool_id)
        view = PoolView.of_snapshot(
            now,
            principal,
            tenants=manager.tenants.count(spec.pool_id)
            if principal.tenants is None
            else accessible_pools(manager, principal.tenants).count(spec.pool_id),
            wait=manager.wait_of(tenant) if mine.waiting_requests else self.fleet.wait_of(spec),
            waiting_on_nodes=self.fleet.loads.waiting_of(spec.pool_id),
            recommendation=self.advisor.open_recommendations.get(spec.pool_id),
            stale=not self.catalog.available,
        )
        if advice is not None and advice.max_size == now.desired.max_size:
            view.advice = AdviceView.of(advice, principal)
        view.share = now.desired.max_size if share is None else share
        view.nodes = self.on_nodes(tenant)
        return view

    def on_nodes(self, tenant: TenantState) -> list[NodeEntryView]:
        """The tenant on each node that reports it, by node name."""
        name, patience = tenant.tenant.spec.id, self.advisor.settings.demand.patience_seconds
        return [
            NodeEntryView.of(node, node.latest.entries[name], patience=patience)
            for _, node in sorted(self.fleet.nodes.items())
            if node.latest and name in node.latest.entries
        ]


def accessible_pools(manager: TenantPoolManager, tenants: frozenset[str]) -> list[str]:
    """The pool ID of each of *tenants* that exists."""
    states = manager.tenants
    return [states[tenant].tenant.spec.pool_id for tenant in states.keys() & tenants]


def _connections(metrics: PoolMetrics) -> dict[str, Any]:
    return {
        "size": metrics.total_connections,
        "idle": metrics.idle_connections,
        "active": metrics.active_connections,
        "waiting": metrics.waiting_requests,
    }
