"""All open and paused pools: the list, and the eviction of idle ones."""

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_OPERATE_ALL, REQUIRE_READ
from app.api.http.dependencies import (
    AdvisorDep,
    CursorQuery,
    LimitQuery,
    PrincipalDep,
    ResponseCacheDep,
    ServerQuery,
    StrategyQuery,
    provided,
)
from app.api.http.paging import Matches, NextCursor, OffsetQuery, Order, SearchQuery
from app.api.http.sparse_fields import FieldsQuery, SparsePage, excluded_fields
from app.api.http.strict_route import StrictRoute
from app.api.views.plan import OperationDep, PlanView
from app.api.views.pool import PoolView
from app.control.monitoring.snapshot import PoolSnapshot, Snapshot, TenantSnapshot
from app.control.pools.operations import PoolOperations
from app.control.time_slices import in_slices
from app.domain.tenant import tenant_of_pool
from app.domain.wait import Wait

router = APIRouter(prefix="/v1/pools", tags=["pools"], route_class=StrictRoute)


class PoolOrder(StrEnum):
    """Sort keys; a minus puts the largest first."""

    POOL_ID = "pool_id"
    WAITING = "waiting"
    MOST_WAITING = "-waiting"
    WAIT_P99 = "wait_p99_ms"
    LONGEST_WAIT_P99 = "-wait_p99_ms"
    ACTIVE = "active"
    MOST_ACTIVE = "-active"
    SIZE = "size"
    LARGEST = "-size"


# Each takes a pool and the number of its clients that wait on nodes.
_RANKS: dict[str, Callable[[PoolSnapshot, int], float]] = {
    "pool_id": lambda *_: 0.0,
    "waiting": lambda row, on_nodes: row.stats.metrics.waiting_requests + on_nodes,
    "wait_p99_ms": lambda row, _: row.stats.wait.p99_ms or 0.0,
    "active": lambda row, _: row.stats.metrics.active_connections,
    "size": lambda row, _: row.stats.metrics.total_connections,
}


class PoolList(BaseModel):
    """A page of open and paused pools."""

    as_of: datetime = Field(
        description="Time of the measurement.", examples=["2026-11-20T09:12:34Z"]
    )
    age_seconds: int = Field(description="Age of the measurement.", examples=[0])
    stale: bool = Field(
        description="Whether the measurement is older than two polls.", examples=[False]
    )
    matches: Matches
    items: list[PoolView]
    next_cursor: NextCursor


class PoolSweepResult(BaseModel):
    """A pool that was evicted or skipped."""

    tenant: str | None = Field(
        description="The tenant it belongs to; null for a shared pool.", examples=["acme"]
    )
    pool_id: str = Field(examples=["acme"])
    reason: str = Field(
        description="Evicted: `idle`. Skipped: `busy`, `min_size` or `not_expired`.",
        examples=["idle"],
    )


class Sweep(BaseModel):
    """The result of evicting idle pools."""

    evicted: list[PoolSweepResult]
    skipped: list[PoolSweepResult] = Field(
        examples=[[{"tenant": "globex", "pool_id": "globex", "reason": "busy"}]]
    )


@router.get(
    "",
    dependencies=[REQUIRE_READ],
    summary="List open, paused and awaited pools",
    response_model=PoolList | SparsePage,
)
async def list_pools(
    request: Request,
    cache: ResponseCacheDep,
    principal: PrincipalDep,
    advisor: AdvisorDep,
    *,
    sort: Annotated[
        PoolOrder,
        Query(
            description="Sort key; ties are sorted by pool ID. `waiting` also counts clients that "
            "wait on nodes."
        ),
    ] = PoolOrder.POOL_ID,
    strategy: StrategyQuery = None,
    server: ServerQuery = None,
    search: SearchQuery = "",
    fields: FieldsQuery = None,
    limit: LimitQuery = 50,
    offset: OffsetQuery = 0,
    cursor: CursorQuery = None,
) -> Response:
    """Lists the open and the paused pools that serve a tenant that the key can access.

    Pools that are not open are listed, too, if clients on nodes wait for them, or if callers wait
    for them while the maximum number of pools is in use.

    The numbers are at most a second old and include the latest change made through this API. Sort
    keys other than the pool ID change between two pages, so a pool can appear twice or not at all.
    """
    excluded = excluded_fields(fields, PoolView)

    async def make(snapshot: Snapshot) -> PoolList:
        found = [
            row
            async for row in in_slices(snapshot.pools_of(principal.tenants))
            if (strategy is None or row.strategy is strategy)
            and (server is None or row.server == server)
            and search in row.pool_id
        ]
        on_nodes, rank = snapshot.waiting_on_nodes, _RANKS[sort.lstrip("-")]
        order: Order[PoolSnapshot] = Order(
            sort.value,
            lambda row: rank(row, on_nodes.get(row.pool_id, 0)),
            lambda row: row.pool_id,
        )
        page, next_cursor = order.page(found, cursor=cursor, offset=offset, limit=limit)
        served = Counter(row.spec.pool_id for row in snapshot.tenants_of(principal.tenants or ()))
        waits = _waits(snapshot.tenants_of(principal.tenants))
        return PoolList(
            **cache.age_fields(snapshot),
            matches=len(found),
            items=[
                PoolView.of_snapshot(
                    row,
                    principal,
                    tenants=row.tenants if principal.tenants is None else served[row.pool_id],
                    wait=waits.get(row.pool_id),
                    waiting_on_nodes=on_nodes.get(row.pool_id, 0),
                    recommendation=advisor.open_recommendations.get(row.pool_id),
                    stale=not snapshot.catalog_available,
                )
                async for row in in_slices(page)
            ],
            next_cursor=next_cursor,
        )

    return await cache.respond(request, make, exclude=excluded)


def _waits(tenants: Collection[TenantSnapshot]) -> dict[str, Wait]:
    """What each pool's callers wait for; of a shared one, those of the tenant with the most."""
    waiting = [(each, each.wait) for each in tenants if each.wait is not None]
    waiting.sort(key=lambda each: each[0].stats.metrics.waiting_requests)
    return {tenant.spec.pool_id: wait for tenant, wait in waiting}


@router.post(
    "/evict-expired",
    dependencies=REQUIRE_OPERATE_ALL,
    summary="Evict idle pools",
)
async def evict_expired_pools(
    operations: Annotated[PoolOperations, provided(PoolOperations)], operation: OperationDep
) -> Sweep | PlanView:
    """Closes every pool that was idle for longer than its idle timeout, and says why others stay.

    The service does the same at each poll. Busy pools and those with a `min_size` stay open. Works
    while the catalog is unreachable. A key that is bound to tenants answers 403.
    """
    return await operation.run(
        operations.evict_expired(operation.actor),
        lambda report: Sweep(
            evicted=[_swept(each.pool_id, each.reason) for each in report.evicted],
            skipped=[_swept(*each) for each in report.skipped.items()],
        ),
    )


def _swept(pool_id: str, reason: str) -> PoolSweepResult:
    return PoolSweepResult(tenant=tenant_of_pool(pool_id), pool_id=pool_id, reason=reason)
