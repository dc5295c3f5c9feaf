"""Statistics over HTTP: of the whole service and of one tenant; their past is `history.py`'s.

Read from memory, so that it works while the catalog is away.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

from fastapi import APIRouter, Request, Response

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import (
    CursorQuery,
    LimitQuery,
    ManagerDep,
    PrincipalDep,
    ResponseCacheDep,
    TenantDep,
)
from app.api.http.error_responses import problem_responses
from app.api.http.paging import decode_cursor, paginate
from app.api.http.sparse_fields import FieldsQuery, SparsePage, excluded_fields
from app.api.http.strict_route import StrictRoute
from app.api.views.stats import (
    LoopLagView,
    PoolCounts,
    ServiceStats,
    TenantStats,
    show_servers,
    show_stats,
    show_totals,
)
from app.domain.pool import PoolState
from app.pools.eviction import EvictionReason

router = APIRouter(prefix="/v1", tags=["stats"], route_class=StrictRoute)


@router.get(
    "/stats",
    dependencies=[REQUIRE_READ],
    summary="Show the service's statistics",
    response_model=ServiceStats | SparsePage,
    responses=problem_responses(),
)
async def get_stats(
    request: Request,
    cache: ResponseCacheDep,
    principal: PrincipalDep,
    *,
    fields: FieldsQuery = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Response:
    """Totals, budgets and evictions of the whole service, and a page of tenants by id.

    As of a moment at most a second ago, and after the last change that was made through this
    API. For a key that is bound to tenants the totals are of these alone, and evictions, which
    are counted for all tenants together, are left out. Works while the catalog is away: nothing
    of it is stored there.
    """
    excluded = excluded_fields(fields, TenantStats)
    after = decode_cursor(cursor, str)[0] if cursor else ""
    snapshot = await cache.snapshot()
    ids = [row.spec.id for row in snapshot.tenants_of(principal.tenants)]
    page, next_cursor = paginate(ids[bisect_right(ids, after) :], limit, lambda tenant: (tenant,))
    states = Counter(row.state for row in snapshot.pools_of(principal.tenants))
    lag, worst_lag = snapshot.loop_lag
    reasons = EvictionReason if principal.tenants is None else ()
    stats = ServiceStats(
        **cache.age_fields(snapshot),
        at=snapshot.as_of,
        tenants=len(ids),
        pools=PoolCounts(open=states.total(), by_state=states),
        totals=show_totals(snapshot, principal.tenants),
        servers=show_servers(snapshot),
        evictions={reason: snapshot.evictions.get(reason, 0) for reason in reasons},
        loop_lag=LoopLagView(now_ms=lag * 1000, worst_ms=worst_lag * 1000),
        items=[
            show_stats(row.spec, row.pool_state, row.stats)
            for row in map(snapshot.tenants.__getitem__, page)
        ],
        next_cursor=next_cursor,
    )
    return cache.render(request, snapshot, stats, exclude=excluded)


@router.get(
    "/tenants/{tenant}/stats",
    dependencies=[REQUIRE_READ],
    summary="Show a tenant's statistics",
    responses=problem_responses(404),
)
async def get_tenant_stats(tenant: TenantDep, manager: ManagerDep) -> TenantStats:
    """Counters, gauges and percentiles of one tenant, whether or not its pool is open."""
    found = manager.tenant_state(tenant)
    pool = manager.find(found.tenant.spec.pool_id)
    state = PoolState.CLOSED if pool is None else pool.state
    return show_stats(found.tenant.spec, state, manager.tenant_stats(found))
