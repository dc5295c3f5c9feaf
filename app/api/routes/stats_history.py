"""The past over HTTP: a tenant's and a pool's, in time steps.

The catalog keeps it, each poll for a while, then minutes, then hours; which of them answers is
decided by `app/domain/sample.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import CatalogDep, ManagerDep, PrincipalDep, TenantDep
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.field_types import Timestamp
from app.api.http.strict_route import StrictRoute
from app.api.routes.events import POOL_ID_PATTERN
from app.catalog.catalog import Catalog
from app.domain.errors import PoolNotFound
from app.domain.history import Resolution
from app.domain.tenant import shared_pool_id
from app.pools.manager import TenantPoolManager

_MOST_STEPS = 2000
_DAY_SECONDS = 86_400

router = APIRouter(prefix="/v1", tags=["stats"], route_class=StrictRoute)


class HistoryPointView(BaseModel):
    """One time step: gauges averaged, counters as growth, percentiles at their worst."""

    at: datetime = Field(description="When the step began.", examples=["2026-11-20T09:00:00Z"])
    samples: int = Field(description="Polls in it.", examples=[12])
    total_connections: float = Field(examples=[3.0])
    active_connections: float = Field(examples=[1.5])
    idle_connections: float = Field(examples=[1.5])
    waiting_requests: float = Field(examples=[0.4])
    waiting_requests_max: int = Field(description="Most waiting at one poll.", examples=[3])
    acquired: int = Field(description="Leases begun in it.", examples=[310])
    timeouts: int = Field(description="Leases not obtained in time in it.", examples=[0])
    wait_p95_ms: float | None = Field(examples=[2.1])
    wait_p99_ms: float | None = Field(examples=[8.5])
    hold_p95_ms: float | None = Field(examples=[12.0])
    connect_p95_ms: float | None = Field(examples=[9.4])


class StatsHistory(BaseModel):
    """The steps in which something was measured, oldest first."""

    tenant: str | None = Field(
        description="Whose past it is; null for a shared pool's.", examples=["acme"]
    )
    pool_id: str = Field(description="The pool itself, or the tenant's.", examples=["acme"])
    start: datetime = Field(alias="from", examples=["2026-11-20T09:00:00Z"])
    end: datetime = Field(alias="to", examples=["2026-11-20T10:00:00Z"])
    step_seconds: int = Field(examples=[60])
    resolution: Resolution = Field(
        description="What the steps were made of: single polls, minutes or hours. Shorter steps"
        " than that are filled where one begins, and left out in between.",
        examples=["minute"],
    )
    items: list[HistoryPointView]


class TimeRange(BaseModel):
    """From when to when, and how finely; checked."""

    start: datetime
    end: datetime
    step_seconds: int


async def _time_range(
    start: Annotated[
        Timestamp | None,
        Query(alias="from", description="Begin, RFC 3339; one hour before the end if omitted."),
    ] = None,
    end: Annotated[
        Timestamp | None, Query(alias="to", description="End, not included; now if omitted.")
    ] = None,
    step_seconds: Annotated[
        int, Query(ge=1, le=_DAY_SECONDS, description="Length of one step.")
    ] = 60,
) -> TimeRange:
    end = end or datetime.now(UTC)
    start = start or end - timedelta(hours=1)
    if end <= start:
        raise validation_error(
            "query", "to", code="before_from", detail="`to` must be after `from`."
        )
    if (end - start).total_seconds() > _MOST_STEPS * step_seconds:
        raise validation_error(
            "query", "step_seconds", code="too_many_steps", detail=f"At most {_MOST_STEPS} steps."
        )
    return TimeRange(start=start, end=end, step_seconds=step_seconds)


TimeRangeDep = Annotated[TimeRange, Depends(_time_range)]


@router.get(
    "/tenants/{tenant}/stats/history",
    dependencies=[REQUIRE_READ],
    summary="Show a tenant's past statistics",
    responses=problem_responses(404),
)
async def get_tenant_stats_history(
    tenant: TenantDep, manager: ManagerDep, catalog: CatalogDep, asked: TimeRangeDep
) -> StatsHistory:
    """What the polls measured, folded into steps.

    Steps begin at whole multiples of their length, so that asking again moves no point. One
    without a measurement is left out: the service was down, or nothing of the tenant's was open
    or in use. At most 2000 steps. Long ago only minutes are known, or hours: `resolution` says
    what the answer was made of, the coarsest that makes whole steps and reaches back far enough.
    """
    spec = manager.tenant_state(tenant).tenant.spec
    return await _query_history(catalog, spec.id, asked, tenant=spec.id, pool_id=spec.pool_id)


@router.get(
    "/pools/{pool_id}/stats/history",
    dependencies=[REQUIRE_READ],
    summary="Show a pool's past statistics",
    responses=problem_responses(404),
)
async def get_pool_stats_history(
    pool_id: Annotated[
        str,
        Path(
            description="A tenant's id, or `shared@` and the server.",
            pattern=POOL_ID_PATTERN,
            max_length=64,
            examples=["shared@local"],
        ),
    ],
    manager: ManagerDep,
    catalog: CatalogDep,
    principal: PrincipalDep,
    asked: TimeRangeDep,
) -> StatsHistory:
    """The same of a pool, open or not; of a shared one it is all its tenants' together.

    A pool that serves none of the key's tenants does not exist for it.
    """
    if not _can_access_pool(manager, principal, pool_id):
        raise PoolNotFound(f"There is no pool {pool_id}.")
    tenant = None if "@" in pool_id else pool_id
    return await _query_history(catalog, pool_id, asked, tenant=tenant, pool_id=pool_id)


def _can_access_pool(manager: TenantPoolManager, principal: Principal, pool_id: str) -> bool:
    """Whether there is such a pool and it serves a tenant of the caller's."""
    accounts = manager.tenant_states
    if principal.tenants is None and "@" in pool_id:
        return pool_id in map(shared_pool_id, manager.servers)
    theirs = {pool_id} if principal.tenants is None else principal.tenants
    return any(accounts[each].tenant.spec.pool_id == pool_id for each in accounts.keys() & theirs)


async def _query_history(
    catalog: Catalog, subject: str, asked: TimeRange, *, tenant: str | None, pool_id: str
) -> StatsHistory:
    history = await catalog.samples.query_history(
        subject, start=asked.start, end=asked.end, step=asked.step_seconds
    )
    return StatsHistory.model_validate(
        {
            "tenant": tenant,
            "pool_id": pool_id,
            "from": asked.start,
            "to": asked.end,
            "step_seconds": asked.step_seconds,
            "resolution": history.resolution,
            "items": history.points,
        },
        from_attributes=True,
    )
