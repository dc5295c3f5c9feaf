"""Current statistics of the service and of one tenant, read from memory."""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import (
    CursorQuery,
    FleetDep,
    LimitQuery,
    ManagerDep,
    PrincipalDep,
    ResponseCacheDep,
    TenantDep,
)
from app.api.http.paging import OffsetQuery, Order, SearchQuery
from app.api.http.sparse_fields import FieldsQuery, SparsePage, excluded_fields
from app.api.http.strict_route import StrictRoute
from app.api.views.stats import (
    LoopLagView,
    PoolCounts,
    ServiceStats,
    TenantStats,
    show_nodes,
    show_servers,
    show_stats,
    show_totals,
)
from app.control.monitoring.snapshot import Snapshot, TenantSnapshot
from app.control.time_slices import in_slices
from app.domain.eviction import EvictionReason

router = APIRouter(prefix="/v1", tags=["stats"], route_class=StrictRoute)


class TenantOrder(StrEnum):
    """Sort keys; a minus puts the largest first."""

    TENANT = "tenant"
    WAITING = "waiting_requests"
    MOST_WAITING = "-waiting_requests"
    WAIT_P99 = "wait_p99_ms"
    LONGEST_WAIT_P99 = "-wait_p99_ms"
    ACTIVE = "active_connections"
    MOST_ACTIVE = "-active_connections"


# Each takes a tenant and the number of its clients that wait on nodes.
_RANKS: dict[str, Callable[[TenantSnapshot, int], float]] = {
    "tenant": lambda *_: 0.0,
    "waiting_requests": lambda row, on_nodes: row.stats.metrics.waiting_requests + on_nodes,
    "wait_p99_ms": lambda row, _: row.stats.wait.p99_ms or 0.0,
    "active_connections": lambda row, _: row.stats.metrics.active_connections,
}


@router.get(
    "/stats",
    dependencies=[REQUIRE_READ],
    summary="Get the service's statistics",
    response_model=ServiceStats | SparsePage,
)
async def get_stats(
    request: Request,
    cache: ResponseCacheDep,
    principal: PrincipalDep,
    fleet: FleetDep,
    *,
    sort: Annotated[
        TenantOrder,
        Query(
            description="Sort key of the tenants; ties are sorted by ID. `waiting_requests` also "
            "counts clients that wait on nodes."
        ),
    ] = TenantOrder.TENANT,
    pool: Annotated[
        str | None,
        Query(max_length=56, description="Filter the tenants by pool, such as `shared@local`."),
    ] = None,
    search: SearchQuery = "",
    fields: FieldsQuery = None,
    limit: LimitQuery = 50,
    offset: OffsetQuery = 0,
    cursor: CursorQuery = None,
) -> Response:
    """Shows totals, budgets and evictions of the service, and a page of its tenants.

    The numbers are at most a second old and include the latest change made through this API. For
    a key that is bound to tenants, totals cover these tenants and evictions are left out. Works
    while the catalog is unreachable.
    """
    excluded = excluded_fields(fields, TenantStats)

    async def make(snapshot: Snapshot) -> ServiceStats:
        tenants = snapshot.tenants_of(principal.tenants)
        found = [
            row
            async for row in in_slices(tenants)
            if (pool is None or row.spec.pool_id == pool) and search in row.spec.id
        ]
        on_nodes, rank = snapshot.waiting_on_nodes, _RANKS[sort.lstrip("-")]
        order: Order[TenantSnapshot] = Order(
            sort.value,
            lambda row: rank(row, on_nodes.get(row.spec.id, 0)),
            lambda row: row.spec.id,
        )
        page, next_cursor = order.page(found, cursor=cursor, offset=offset, limit=limit)
        pools = list(snapshot.pools_of(principal.tenants))
        lag, worst_lag = snapshot.loop_lag
        reasons = EvictionReason if principal.tenants is None else ()
        return ServiceStats(
            **cache.age_fields(snapshot),
            at=snapshot.as_of,
            tenants=len(tenants),
            matches=len(found),
            pools=PoolCounts(
                open=sum(row.is_open for row in pools), by_state=Counter(row.state for row in pools)
            ),
            totals=show_totals(snapshot, principal.tenants),
            servers=show_servers(snapshot),
            nodes=None if principal.tenants is not None else show_nodes(fleet),
            evictions={reason: snapshot.evictions.get(reason, 0) for reason in reasons},
            loop_lag=LoopLagView(now_ms=lag * 1000, worst_ms=worst_lag * 1000),
            items=[
                show_stats(
                    *(row.spec, row.pool_state, row.stats, row.wait),
                    waiting_on_nodes=on_nodes.get(row.spec.id, 0),
                )
                async for row in in_slices(page)
            ],
            next_cursor=next_cursor,
        )

    return await cache.respond(request, make, exclude=excluded)


@router.get(
    "/tenants/{tenant}/stats", dependencies=[REQUIRE_READ], summary="Get a tenant's statistics"
)
async def get_tenant_stats(tenant: TenantDep, manager: ManagerDep, fleet: FleetDep) -> TenantStats:
    """Shows a tenant's counters, gauges and percentiles, whether or not its pool is open."""
    found = manager.tenants.state(tenant)
    state = manager.pool_state(found.tenant.spec.pool_id)
    stats = manager.tenant_stats(found)
    is_awaited = stats.metrics.waiting_requests > 0
    wait = manager.wait_of(found) if is_awaited else fleet.wait_of(found.tenant.spec)
    on_nodes = fleet.loads.waiting_of(found.tenant.spec.id)
    return show_stats(found.tenant.spec, state, stats, wait, waiting_on_nodes=on_nodes)
