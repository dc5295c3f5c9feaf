"""Past statistics of a tenant, of a pool and of the whole service, in time steps.

The catalog keeps single polls for a while, then minutes, hours and days; `app/domain/history.py`
chooses the one that answers a request.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_READ, REQUIRE_READ_ALL
from app.api.http.dependencies import CatalogDep, ManagerDep, PrincipalDep, TenantDep
from app.api.http.error_responses import validation_error
from app.api.http.field_types import Timestamp
from app.api.http.strict_route import StrictRoute
from app.api.routes.events import POOL_ID_PATTERN
from app.api.views.pool import accessible_pools
from app.catalog.catalog import Catalog
from app.domain.errors import PoolNotFound
from app.domain.history import SERVICE, Resolution, on_nodes, tenant_of
from app.domain.tenant import shared_pool_id, tenant_of_pool
from app.pools.manager import TenantPoolManager

_MAX_STEPS = 2000
_DAY_SECONDS = 86_400

_WORST = "Worst value of the step's polls; each poll covers the last `stats_window_seconds` (300)."
_OF_LEASES = f"{_WORST} Null if there was no lease in the step."

router = APIRouter(prefix="/v1", tags=["stats"], route_class=StrictRoute)


class HistoryPointView(BaseModel):
    """A time step: averages of gauges, increases of counters, maxima of percentiles."""

    at: datetime = Field(description="Start of the step.", examples=["2026-11-20T09:00:00Z"])
    samples: int = Field(description="Polls within the step.", examples=[12])
    total_connections: float = Field(description="Open connections, on average.", examples=[3.0])
    active_connections: float = Field(
        description="Connections on lease, on average.", examples=[1.5]
    )
    idle_connections: float = Field(description="Idle connections, on average.", examples=[1.5])
    waiting_requests: float = Field(
        description="Callers that waited for a lease, on average.", examples=[0.4]
    )
    waiting_requests_max: int = Field(description="Most of them at one poll.", examples=[3])
    acquired: int = Field(
        description="Leases granted: the growth of `connections_acquired`.", examples=[310]
    )
    timeouts: int = Field(description="Leases that timed out.", examples=[0])
    connection_seconds: float = Field(
        description="How long connections were leased: the sum over all connections.",
        examples=[90.2],
    )
    wait_p95_ms: float | None = Field(
        description=f"Wait for a connection. {_OF_LEASES}", examples=[2.1]
    )
    wait_p99_ms: float | None = Field(
        description=f"Wait for a connection. {_OF_LEASES}", examples=[8.5]
    )
    hold_p95_ms: float | None = Field(
        description=f"Duration of leases. {_OF_LEASES}", examples=[12.0]
    )
    connect_p95_ms: float | None = Field(
        description=f"Duration of logins. {_WORST} Null if there was none.", examples=[9.4]
    )


class NodesHistoryPointView(HistoryPointView):
    """A time step of what nodes reported: connections, clients that waited, transactions."""

    estimated: bool = Field(
        default=True,
        description="Always true: poolers count sums, so the percentiles are estimated. `acquired` "
        "are transactions that ended. What is not known is null, and time-outs are not counted.",
    )


class ServiceHistory(BaseModel):
    """The steps with measurements of all pools together, oldest first."""

    start: datetime = Field(alias="from", examples=["2026-11-20T09:00:00Z"])
    end: datetime = Field(alias="to", examples=["2026-11-20T10:00:00Z"])
    step_seconds: int = Field(examples=[60])
    resolution: Resolution = Field(
        description="What the steps are computed from: single polls, minutes, hours or days. "
        "Shorter steps are included only if one of these begins in them.",
        examples=["minute"],
    )
    items: list[HistoryPointView]
    on_nodes: list[NodesHistoryPointView] = Field(
        description="The same for PgBouncer nodes, which `items` does not include; always empty "
        "for a shared pool."
    )


class StatsHistory(ServiceHistory):
    """The steps with measurements, oldest first."""

    tenant: str | None = Field(description="Null for a shared pool.", examples=["acme"])
    pool_id: str = Field(description="The pool, or the tenant's pool.", examples=["acme"])


EndQuery = Annotated[
    Timestamp | None, Query(alias="to", description="End, exclusive; now if omitted.")
]


def check_order(start: datetime, end: datetime) -> None:
    """Refuse a period that ends before it starts."""
    if end <= start:
        detail = "`to` must be after `from`."
        raise validation_error("query", "to", code="before_from", detail=detail)


History = TypeVar("History", bound=ServiceHistory)


class TimeRange(BaseModel):
    """From when to when, and how finely; checked."""

    start: datetime
    end: datetime
    step_seconds: int


async def _time_range(
    start: Annotated[
        Timestamp | None,
        Query(alias="from", description="Start, RFC 3339; one hour before the end if omitted."),
    ] = None,
    end: EndQuery = None,
    step_seconds: Annotated[
        int, Query(ge=1, le=_DAY_SECONDS, description="Length of a step.")
    ] = 60,
) -> TimeRange:
    end = end or datetime.now(UTC)
    start = start or end - timedelta(hours=1)
    check_order(start, end)
    if (end - start).total_seconds() > _MAX_STEPS * step_seconds:
        raise validation_error(
            "query", "step_seconds", code="too_many_steps", detail=f"At most {_MAX_STEPS} steps."
        )
    return TimeRange(start=start, end=end, step_seconds=step_seconds)


TimeRangeDep = Annotated[TimeRange, Depends(_time_range)]


@router.get(
    "/stats/history",
    dependencies=REQUIRE_READ_ALL,
    summary="Get the service's past statistics",
)
async def get_service_stats_history(
    catalog: CatalogDep, time_range: TimeRangeDep
) -> ServiceHistory:
    """Shows the polls' measurements of all pools together; the percentiles are the worst pool's.

    `on_nodes` has what nodes reported. A key that is bound to tenants answers 403.
    """
    return await _history(ServiceHistory, catalog, SERVICE, time_range)


@router.get(
    "/tenants/{tenant}/stats/history",
    dependencies=[REQUIRE_READ],
    summary="Get a tenant's past statistics",
)
async def get_tenant_stats_history(
    tenant: TenantDep, manager: ManagerDep, catalog: CatalogDep, time_range: TimeRangeDep
) -> StatsHistory:
    """Shows the polls' measurements, downsampled to steps.

    Steps start at whole multiples of their length, so a repeated request returns the same points.
    A step without measurements is left out: the service was down, or the tenant had no open pool
    and no use. `on_nodes` has the tenant on PgBouncer nodes. At most 2000 steps. Old measurements
    are kept per minute, then per hour and day; `resolution` is the coarsest that fits the step and
    reaches back far enough.
    """
    spec = manager.tenants.state(tenant).tenant.spec
    return await _history(
        StatsHistory, catalog, spec.id, time_range, tenant=spec.id, pool_id=spec.pool_id
    )


@router.get(
    "/pools/{pool_id}/stats/history",
    dependencies=[REQUIRE_READ],
    summary="Get a pool's past statistics",
)
async def get_pool_stats_history(
    pool_id: Annotated[
        str,
        Path(
            description="A tenant's ID, or `shared@` and a server's name.",
            pattern=POOL_ID_PATTERN,
            max_length=64,
            examples=["shared@local"],
        ),
    ],
    manager: ManagerDep,
    catalog: CatalogDep,
    principal: PrincipalDep,
    time_range: TimeRangeDep,
) -> StatsHistory:
    """Shows the polls' measurements of a pool, open or not, downsampled to steps as for a tenant.

    For a shared pool it shows all tenants together. A pool that serves none of the key's tenants
    answers 404.
    """
    if not _can_access_pool(manager, principal, pool_id):
        raise PoolNotFound(f"There is no pool {pool_id}.")
    return await _history(
        StatsHistory, catalog, pool_id, time_range, tenant=tenant_of_pool(pool_id), pool_id=pool_id
    )


def _can_access_pool(manager: TenantPoolManager, principal: Principal, pool_id: str) -> bool:
    """Whether the pool exists and serves a tenant that the principal can access."""
    if principal.tenants is None and tenant_of_pool(pool_id) is None:
        return pool_id in map(shared_pool_id, manager.servers)
    tenants = frozenset({pool_id}) if principal.tenants is None else principal.tenants
    return pool_id in accessible_pools(manager, tenants)


async def _history(
    kind: type[History], catalog: Catalog, subject: str, time_range: TimeRange, **of: str | None
) -> History:
    query = partial(
        catalog.samples.query_history,
        start=time_range.start,
        end=time_range.end,
        step=time_range.step_seconds,
    )
    history = await query(subject)
    is_shared = subject != SERVICE and tenant_of(subject) is None
    fields = {
        **of,
        "from": time_range.start,
        "to": time_range.end,
        "step_seconds": time_range.step_seconds,
        "resolution": history.resolution,
        "items": history.points,
        "on_nodes": () if is_shared else (await query(on_nodes(subject))).points,
    }
    return kind.model_validate(fields, from_attributes=True)
