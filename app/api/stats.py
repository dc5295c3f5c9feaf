"""Statistics over HTTP: of the whole service, of one tenant, and of its past.

The present is read from memory and works while the catalog is away; the past is the catalog's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.deps import CursorQuery, LimitQuery, ServiceDep, TenantDep
from app.api.moment import Moment
from app.api.paging import decode_cursor, page_of
from app.api.problems import documented, invalid
from app.api.stats_view import (
    LoopLagView,
    PoolCounts,
    ServiceStats,
    TenantStats,
    show_servers,
    show_stats,
    show_totals,
)
from app.pools.eviction import EvictionReason

_MOST_STEPS = 2000
_DAY_SECONDS = 86_400

router = APIRouter(prefix="/v1", tags=["stats"])


class HistoryPointView(BaseModel):
    """One time step: gauges averaged, counters as growth, percentiles at their worst."""

    at: datetime = Field(description="When the step began.", examples=["2026-11-20T09:00:00Z"])
    samples: int = Field(description="Polls in it.", examples=[12])
    total_connections: float = Field(examples=[3.0])
    active_connections: float = Field(examples=[1.5])
    idle_connections: float = Field(examples=[1.5])
    waiting_requests: float = Field(examples=[0.0])
    acquired: int = Field(description="Leases begun in it.", examples=[310])
    timeouts: int = Field(description="Leases not obtained in time in it.", examples=[0])
    wait_p95_ms: float | None = Field(examples=[2.1])
    wait_p99_ms: float | None = Field(examples=[8.5])
    hold_p95_ms: float | None = Field(examples=[12.0])
    connect_p95_ms: float | None = Field(examples=[9.4])


class StatsHistory(BaseModel):
    """The steps in which something was measured, oldest first."""

    tenant: str = Field(examples=["acme"])
    start: datetime = Field(alias="from", examples=["2026-11-20T09:00:00Z"])
    end: datetime = Field(alias="to", examples=["2026-11-20T10:00:00Z"])
    step_seconds: int = Field(examples=[60])
    items: list[HistoryPointView]


@router.get("/stats", summary="Show the service's statistics", responses=documented())
async def get_stats(
    service: ServiceDep, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> ServiceStats:
    """Totals, budgets and evictions of the whole service, and a page of tenants by id.

    Works while the catalog is away: nothing of it is stored there.
    """
    after = decode_cursor(cursor, str)[0] if cursor else ""
    accounts = service.manager.accounts
    ids, next_cursor = page_of(
        sorted(tenant for tenant in accounts if tenant > after), limit, lambda tenant: (tenant,)
    )
    states = Counter(pool.state for pool in service.manager.pools())
    return ServiceStats(
        at=datetime.now(UTC),
        tenants=len(accounts),
        pools=PoolCounts(open=states.total(), by_state=states),
        totals=show_totals(service),
        servers=show_servers(service),
        evictions={reason: service.manager.evictions[reason] for reason in EvictionReason},
        loop_lag=LoopLagView(now_ms=service.lag.now * 1000, worst_ms=service.lag.worst * 1000),
        items=[show_stats(service, accounts[tenant]) for tenant in ids],
        next_cursor=next_cursor,
    )


@router.get(
    "/tenants/{tenant}/stats", summary="Show a tenant's statistics", responses=documented(404)
)
async def get_tenant_stats(tenant: TenantDep, service: ServiceDep) -> TenantStats:
    """Counters, gauges and percentiles of one tenant, whether or not its pool is open."""
    return show_stats(service, service.manager.account(tenant))


@router.get(
    "/tenants/{tenant}/stats/history",
    summary="Show a tenant's past statistics",
    responses=documented(404),
)
async def get_tenant_stats_history(
    tenant: TenantDep,
    service: ServiceDep,
    start: Annotated[
        Moment | None,
        Query(alias="from", description="Begin, RFC 3339; one hour before the end if omitted."),
    ] = None,
    end: Annotated[
        Moment | None, Query(alias="to", description="End, not included; now if omitted.")
    ] = None,
    step_seconds: Annotated[
        int, Query(ge=1, le=_DAY_SECONDS, description="Length of one step.")
    ] = 60,
) -> StatsHistory:
    """What the polls measured, folded into steps.

    Steps begin at whole multiples of their length, so that asking again moves no point; one
    without a measurement is left out. At most 2000 steps.
    """
    account = service.manager.account(tenant)
    end = end or datetime.now(UTC)
    start = start or end - timedelta(hours=1)
    if end <= start:
        raise invalid("query", "to", code="before_from", detail="`to` must be after `from`.")
    if (end - start).total_seconds() > _MOST_STEPS * step_seconds:
        raise invalid(
            "query", "step_seconds", code="too_many_steps", detail=f"At most {_MOST_STEPS} steps."
        )
    points = await service.catalog.samples.history(
        account.tenant.spec.id, start=start, end=end, step=step_seconds
    )
    return StatsHistory.model_validate(
        {
            "tenant": tenant,
            "from": start,
            "to": end,
            "step_seconds": step_seconds,
            "items": [asdict(point) for point in points],
        }
    )
