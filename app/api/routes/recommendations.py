"""The advisor's recommendations: list, apply and dismiss them."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_OPERATE, REQUIRE_READ
from app.api.http.dependencies import (
    AdvisorDep,
    CatalogDep,
    CursorQuery,
    LimitQuery,
    PrincipalDep,
    provided,
)
from app.api.http.field_types import Timestamp
from app.api.http.paging import NextCursor, decode_cursor, invalid_cursor, paginate
from app.api.http.strict_route import StrictRoute
from app.api.routes.events import PoolQuery, TenantQuery
from app.api.views.advice import Advice, advice_fields
from app.api.views.plan import OperationDep, PlanView
from app.catalog.catalog import Catalog
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.advisor.recommendation_applier import RecommendationApplier
from app.domain.advisor import Placement, ScalingAction
from app.domain.errors import CatalogUnavailable, RecommendationNotFound
from app.domain.recommendation import (
    Recommendation,
    RecommendationKind,
    RecommendationStatus,
)

router = APIRouter(prefix="/v1/recommendations", tags=["recommendations"], route_class=StrictRoute)

# A forged cursor can hold any timestamp; only ours can be compared and stored.
_POSITION: TypeAdapter[tuple[datetime, UUID]] = TypeAdapter(tuple[Timestamp, UUID])

RecommendationId = Annotated[
    UUID,
    Path(
        alias="id",
        description="The recommendation's ID.",
        examples=["3f2b8c1e-9d47-4c5e-8a70-6a1f0b2c3d4e"],
    ),
]


async def _require_access(
    recommendation_id: RecommendationId, catalog: CatalogDep, principal: PrincipalDep
) -> None:
    """Raise RecommendationNotFound if it is about a pool that the principal cannot access."""
    if principal.tenants is not None:
        await _accessible(recommendation_id, catalog, principal)


async def _accessible(
    recommendation_id: UUID, catalog: Catalog, principal: Principal
) -> Recommendation:
    found = await catalog.recommendations.get(recommendation_id)
    if not principal.can_access(found.tenant):
        raise RecommendationNotFound
    return found


_REQUIRE_ACCESS = Depends(_require_access)
ApplierDep = Annotated[RecommendationApplier, provided(RecommendationApplier)]


class PoolMetricsView(BaseModel):
    """A sample of a pool."""

    total_connections: int = Field(examples=[5])
    idle_connections: int = Field(examples=[0])
    active_connections: int = Field(examples=[5])
    waiting_requests: int = Field(examples=[8])


class _Identity(BaseModel):
    id: UUID = Field(examples=["3f2b8c1e-9d47-4c5e-8a70-6a1f0b2c3d4e"])
    pool: str = Field(examples=["acme"])
    tenant: str | None = Field(
        description="The tenant it belongs to; null for a shared pool.", examples=["acme"]
    )
    kind: RecommendationKind = Field(
        description="`resize`: another size. `placement`: another kind of pool for a tenant; a "
        "person carries it out, and the size stays as it is.",
        examples=["resize"],
    )
    placement: Placement | None = Field(
        description="The kind of pool that suits the tenant; null for a resize.", examples=[None]
    )
    rule: str = Field(examples=["demand"])


class RecommendationView(Advice, _Identity):
    """A recommended size of a pool, or placement of a tenant, with its reason and status."""

    action: ScalingAction = Field(description="`stable` for a placement.", examples=["scale_up"])
    current_size: int = Field(
        description="The size the rule started from: the open connections (hysteresis) or "
        "max_size (every other rule).",
        examples=[5],
    )
    new_size: int = Field(description="The recommended max_size.", examples=[12])
    max_size: int = Field(description="max_size at the time of the recommendation.", examples=[5])
    metrics: PoolMetricsView = Field(description="The sample behind it.")
    status: RecommendationStatus = Field(examples=["open"])
    created_at: datetime = Field(examples=["2026-11-20T09:00:00Z"])
    expires_at: datetime = Field(
        description="Time at which it expires unless closed before.",
        examples=["2026-11-20T09:05:00Z"],
    )
    closed_at: datetime | None = Field(examples=[None])
    closed_by: str | None = Field(
        description="Who closed it: the advisor, if it was superseded or expired.", examples=[None]
    )

    @classmethod
    def of(cls, recommendation: Recommendation) -> Self:
        values = asdict(recommendation) | advice_fields(recommendation.advice)
        return cls(pool=values.pop("pool_id"), kind=recommendation.kind, **values)


class RecommendationList(BaseModel):
    """A page of recommendations, newest first."""

    items: list[RecommendationView]
    next_cursor: NextCursor
    stale: bool = Field(
        description="Whether the catalog is unreachable: only open ones, from memory.",
        examples=[False],
    )


@router.get("", dependencies=[REQUIRE_READ], summary="List recommendations")
async def list_recommendations(  # noqa: PLR0917 - one parameter per filter
    catalog: CatalogDep,
    advisor: AdvisorDep,
    principal: PrincipalDep,
    status: Annotated[
        RecommendationStatus | None, Query(description="Filter by status; omit it for all.")
    ] = None,
    tenant: TenantQuery = None,
    pool: PoolQuery = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> RecommendationList:
    """Lists recommendations and their status, newest first.

    A shared pool belongs to no single tenant: filter by `pool`. While the catalog is unreachable,
    open recommendations are listed from memory, with `stale: true`. A key that is bound to tenants
    sees only those for their own pools.
    """
    before = _position(cursor) if cursor else None
    stale = False
    try:
        found = await catalog.recommendations.page(
            status=status,
            pool_id=pool,
            tenant=tenant,
            before=before,
            limit=limit + 1,
            among=principal.tenants,
        )
    except CatalogUnavailable:
        if status not in (None, RecommendationStatus.OPEN):  # the catalog has all others
            raise
        found = _open(advisor, principal, tenant=tenant, pool=pool, before=before)
        stale = True
    items, next_cursor = paginate(
        found, limit, lambda each: (each.created_at.isoformat(), str(each.id))
    )
    return RecommendationList(
        items=[RecommendationView.of(each) for each in items], next_cursor=next_cursor, stale=stale
    )


@router.get(
    "/{id}",  # noqa: FAST003 - it is the parameter's alias
    dependencies=[REQUIRE_READ],
    summary="Get a recommendation",
)
async def get_recommendation(
    recommendation_id: RecommendationId, catalog: CatalogDep, principal: PrincipalDep
) -> RecommendationView:
    """Shows one recommendation, open or closed."""
    return RecommendationView.of(await _accessible(recommendation_id, catalog, principal))


@router.post(
    "/{id}/apply",  # noqa: FAST003 - it is the parameter's alias
    dependencies=[REQUIRE_OPERATE, _REQUIRE_ACCESS],
    summary="Apply a recommendation",
)
async def apply_recommendation(
    recommendation_id: RecommendationId, applier: ApplierDep, operation: OperationDep
) -> RecommendationView | PlanView:
    """Sets the pool's `max_size` to the recommended one, like any other change of it.

    A recommendation that is no longer open answers 409 `recommendation-closed`; a placement
    answers 409 `recommendation-is-placement`: a person has to move the tenant's data.
    """
    applying = await applier.apply(recommendation_id, operation.actor)
    return await operation.run(applying, RecommendationView.of)


@router.post(
    "/{id}/dismiss",  # noqa: FAST003 - it is the parameter's alias
    dependencies=[REQUIRE_OPERATE, _REQUIRE_ACCESS],
    summary="Dismiss a recommendation",
)
async def dismiss_recommendation(
    recommendation_id: RecommendationId, applier: ApplierDep, operation: OperationDep
) -> RecommendationView | PlanView:
    """Closes the recommendation; the pool stays as it is.

    A recommendation that is no longer open answers 409 `recommendation-closed`.
    """
    dismissing = await applier.dismiss(recommendation_id, operation.actor)
    return await operation.run(dismissing, RecommendationView.of)


def _position(cursor: str) -> tuple[datetime, UUID]:
    key = decode_cursor(cursor, str, str)
    try:
        return _POSITION.validate_python(key)
    except ValidationError as error:
        raise invalid_cursor() from error


def _open(
    advisor: AdvisorLoop,
    principal: Principal,
    *,
    tenant: str | None,
    pool: str | None,
    before: tuple[datetime, UUID] | None,
) -> tuple[Recommendation, ...]:
    """The open ones that match, in the catalog's order."""
    found = [
        each
        for each in advisor.open_recommendations.values()
        if principal.can_access(each.tenant)
        and (tenant is None or each.tenant == tenant)
        and (pool is None or each.pool_id == pool)
        and (before is None or (each.created_at, each.id) < before)
    ]
    return tuple(sorted(found, key=lambda each: (each.created_at, each.id), reverse=True))
