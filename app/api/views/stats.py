"""Statistics in the API: those of a tenant, and of the whole service."""

from collections import Counter
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.views.wait import WaitView
from app.control.monitoring.snapshot import Snapshot
from app.control.nodes.fleet import Fleet
from app.domain.counters import COUNTERS, Counters
from app.domain.eviction import EvictionReason
from app.domain.nodes.node import NodeState
from app.domain.pool import PoolMetrics, PoolState, PoolStats
from app.domain.server_state import ServerState
from app.domain.tenant import PoolStrategy, TenantSpec
from app.domain.wait import Wait


class Latency(BaseModel):
    """Percentiles over the window; null if nothing was measured in it."""

    model_config = ConfigDict(from_attributes=True)

    p50_ms: float | None = Field(examples=[0.4])
    p95_ms: float | None = Field(examples=[2.1])
    p99_ms: float | None = Field(examples=[8.5])


def _counter(name: str, example: int) -> Any:  # noqa: ANN401 - as Field itself
    return Field(description=COUNTERS[name].meaning, examples=[example])


class ServiceTotals(BaseModel):
    """Current gauges, and counters since the service started."""

    active_connections: int = Field(description="Connections on lease.", examples=[4])
    idle_connections: int = Field(
        description="Idle connections. Those of a shared pool are in the totals and belong to no "
        "tenant.",
        examples=[6],
    )
    waiting_requests: int = Field(description="Callers that wait for a lease.", examples=[0])
    connections_acquired: int = _counter("connections_acquired", 1200)
    connections_released: int = _counter("connections_released", 1196)
    total_wait_time_ms: float = Field(
        description=COUNTERS["wait_seconds"].meaning, examples=[860.2]
    )
    timeouts: int = _counter("timeouts", 0)
    rejected: int = _counter("rejected", 0)
    pool_limit_waits: int = _counter("pool_limit_waits", 0)
    health_check_failures: int = _counter("health_check_failures", 0)
    connections_opened: int = _counter("connections_opened", 12)
    connections_closed: int = _counter("connections_closed", 2)
    connections_lost: int = _counter("connections_lost", 0)
    connect_failures: int = _counter("connect_failures", 0)


class _TenantPool(BaseModel):
    tenant: str = Field(examples=["acme"])
    server: str = Field(examples=["local"])
    strategy: PoolStrategy = Field(examples=["per_tenant"])
    pool: str = Field(description="The pool that serves the tenant.", examples=["acme"])
    pool_state: PoolState = Field(
        description="`closed` if it is not open, `unavailable` while its server is away.",
        examples=["ready"],
    )


class TenantStats(ServiceTotals, _TenantPool):
    """A tenant's counters, gauges and percentiles.

    Counters grow from the start of the service and outlive the pool. A tenant of a shared pool
    sees its own leases and waits; the pool's connections belong to no single tenant.
    """

    waiting_on_nodes: int = Field(
        description="Clients that wait on nodes; `waiting_requests` does not count them.",
        examples=[0],
    )
    waits_for: WaitView | None = Field(
        description="What its callers wait for now, or its clients on nodes if no caller waits; "
        "null if nobody waits."
    )
    max_wait_time_ms: float = Field(
        description="Longest wait in the window, with or without success.", examples=[14.9]
    )
    created_at: datetime | None = Field(
        description="When its pool was last opened.", examples=["2026-11-20T09:00:02Z"]
    )
    last_activity: datetime | None = Field(
        description="When a lease last began or ended.", examples=["2026-11-20T09:12:31Z"]
    )
    window_seconds: float = Field(
        description="Window of the percentiles and the maximum.", examples=[300.0]
    )
    wait: Latency = Field(
        description="From asking for a connection to getting it, or to giving up: at the deadline "
        "or before."
    )
    hold: Latency = Field(description="From getting a connection to giving it back.")
    connect: Latency = Field(description="Opening a connection, login included.")


class PoolCounts(BaseModel):
    """How many pools are open, and how many are in each state; a closed pool may be paused."""

    open: int = Field(examples=[3])
    by_state: dict[PoolState, int] = Field(examples=[{"ready": 3}])


class ServerUse(BaseModel):
    """A server's connection budget, and its use."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(examples=["local"])
    state: ServerState = Field(examples=["available"])
    max_connections: int | None = Field(
        description="The server's `max_connections`; null until it was reached.", examples=[100]
    )
    budget: int = Field(description="Maximum number of connections of all pools.", examples=[86])
    used: int = Field(description="Open, connecting, closing or lost.", examples=[10])
    lost: int = Field(
        description="Connections in `used` that broke but that Postgres may still have. While the "
        "server is unavailable, their end cannot be seen.",
        examples=[0],
    )
    nodes: int = Field(description="What nodes may have, used there or not.", examples=[24])
    nodes_open: int = Field(
        description="How many of these are open, as each node last reported.", examples=[3]
    )
    active: int = Field(description="On lease.", examples=[4])
    contended: bool = Field(
        description="Whether a pool, or clients of a node, wait for a connection of the budget.",
        examples=[False],
    )
    read_only: bool | None = Field(
        description="Whether the server accepts no writes; null before the first contact.",
        examples=[False],
    )
    last_error: str | None = Field(
        description="Why no connection can be opened; null when all is well.", examples=[None]
    )


class NodeTotals(BaseModel):
    """All nodes together."""

    by_state: dict[NodeState, int] = Field(examples=[{"ready": 2}])
    troubled: int = Field(description="Nodes that show a `problem`.", examples=[0])
    vulnerable: int = Field(
        description="Nodes whose PgBouncer has a weakness that an attacker can use.", examples=[0]
    )
    clients: int = Field(
        description="Connections of applications to nodes that report.", examples=[85]
    )
    waiting: int = Field(
        description="Those of them that wait for a connection to Postgres.", examples=[0]
    )


class LoopLagView(BaseModel):
    """How late the service's event loop runs; a high value alone explains waits."""

    now_ms: float = Field(description="Last measurement.", examples=[0.3])
    worst_ms: float = Field(description="Maximum of the last ten seconds.", examples=[4.1])


class ServiceStats(BaseModel):
    """The whole service, and one page of its tenants by ID."""

    as_of: datetime = Field(
        description="When the numbers were read.", examples=["2026-11-20T09:12:34Z"]
    )
    age_seconds: int = Field(description="Age of the numbers.", examples=[0])
    stale: bool = Field(description="Whether they are older than two polls.", examples=[False])
    at: datetime = Field(description="Same as `as_of`.", examples=["2026-11-20T09:12:34Z"])
    tenants: int = Field(description="Number of tenants.", examples=[24])
    pools: PoolCounts
    totals: ServiceTotals
    servers: list[ServerUse]
    nodes: NodeTotals | None = Field(description="Null for a key that is bound to tenants.")
    evictions: dict[EvictionReason, int] = Field(
        description="Pools closed, by reason.",
        examples=[{"idle": 2, "lru": 0, "requested": 1, "forced": 0, "deleted": 0, "drained": 0}],
    )
    loop_lag: LoopLagView
    matches: int = Field(description="Tenants that match the filters, on all pages.", examples=[24])
    items: list[TenantStats]
    next_cursor: str | None = Field(
        description="For the next page of tenants; null on the last one.", examples=[None]
    )


_SILENT = frozenset({NodeState.STALE, NodeState.GONE})
_COUNTERS = tuple(name for name in COUNTERS if name in ServiceTotals.model_fields)
_MEASURED = tuple(each.name for each in fields(PoolStats) if each.name in TenantStats.model_fields)
_counters_of = attrgetter(*_COUNTERS)
_measured_of = attrgetter(*_MEASURED)


class StatsEvent(BaseModel):
    """What the stream sends after each poll."""

    as_of: datetime = Field(examples=["2026-11-20T09:12:34Z"])
    sequence: int = Field(description="Grows with each snapshot.", examples=[417])
    totals: ServiceTotals
    servers: list[ServerUse]


def show_stats(
    spec: TenantSpec,
    pool_state: PoolState,
    stats: PoolStats,
    wait: Wait | None,
    *,
    waiting_on_nodes: int,
) -> TenantStats:
    """One tenant's statistics."""
    return TenantStats(
        tenant=spec.id,
        server=spec.server,
        strategy=spec.strategy,
        pool=spec.pool_id,
        pool_state=pool_state,
        waiting_on_nodes=waiting_on_nodes,
        waits_for=WaitView.of(wait),
        **_totals(stats.counters, stats.metrics),
        **dict(zip(_MEASURED, _measured_of(stats), strict=True)),
    )


def show_totals(snapshot: Snapshot, only: frozenset[str] | None) -> ServiceTotals:
    """All pools together, or, with *only*, what these tenants hold and did."""
    if only is None:
        service = snapshot.service
        return ServiceTotals(**_totals(service.counters, service.metrics))
    stats = [tenant.stats for tenant in snapshot.tenants_of(only)]
    counters = sum((each.counters for each in stats), start=Counters())
    return ServiceTotals(**_totals(counters, PoolMetrics.total(each.metrics for each in stats)))


def _totals(counters: Counters, gauges: PoolMetrics) -> dict[str, Any]:
    return {
        **dict(zip(_COUNTERS, _counters_of(counters), strict=True)),
        "active_connections": gauges.active_connections,
        "idle_connections": gauges.idle_connections,
        "waiting_requests": gauges.waiting_requests,
        "total_wait_time_ms": counters.wait_seconds * 1000,
    }


def show_servers(snapshot: Snapshot) -> list[ServerUse]:
    """Every server's budget."""
    return [ServerUse.model_validate(row) for row in snapshot.servers]


def show_nodes(fleet: Fleet) -> NodeTotals:
    """All nodes together."""
    nodes = fleet.nodes.values()
    heard = [node.latest for node in nodes if node.latest and node.state not in _SILENT]
    return NodeTotals(
        by_state=Counter(node.state for node in nodes),
        troubled=sum(bool(fleet.problem(node)) for node in nodes),
        vulnerable=sum(bool(node.vulnerabilities) for node in nodes),
        clients=sum(each.sums.clients for each in heard),
        waiting=sum(each.sums.waiting for each in heard),
    )


def stats_event(snapshot: Snapshot, only: frozenset[str] | None) -> StatsEvent:
    """The event for *snapshot*; its totals cover all tenants, or with *only*, these."""
    return StatsEvent(
        as_of=snapshot.as_of,
        sequence=snapshot.sequence,
        totals=show_totals(snapshot, only),
        servers=show_servers(snapshot),
    )
