"""What the advisor says over HTTP: list it, apply it, dismiss it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.api.deps import ActorDep, CursorQuery, LimitQuery, Service, ServiceDep
from app.api.events import PoolQuery, TenantQuery
from app.api.moment import Moment
from app.api.paging import decode_cursor, page_of
from app.api.problems import documented, invalid
from app.domain.advisor import Action, ReasonCode
from app.domain.errors import CatalogUnavailable
from app.domain.recommendation import Recommendation, RecommendationStatus

router = APIRouter(prefix="/v1/recommendations", tags=["recommendations"])

# A forged cursor may hold any moment, and only ours can be compared and stored.
_POSITION: TypeAdapter[tuple[datetime, UUID]] = TypeAdapter(tuple[Moment, UUID])

RecommendationId = Annotated[
    UUID,
    Path(
        alias="id",
        description="A recommendation's id.",
        examples=["3f2b8c1e-9d47-4c5e-8a70-6a1f0b2c3d4e"],
    ),
]


class SampleView(BaseModel):
    """One look at a pool."""

    total_connections: int = Field(examples=[5])
    idle_connections: int = Field(examples=[0])
    active_connections: int = Field(examples=[5])
    waiting_requests: int = Field(examples=[8])


class RecommendationView(BaseModel):
    """A size for one pool, why, and what became of it."""

    id: UUID = Field(examples=["3f2b8c1e-9d47-4c5e-8a70-6a1f0b2c3d4e"])
    pool: str = Field(examples=["acme"])
    tenant: str | None = Field(
        description="Whose pool it is; null for a shared pool.", examples=["acme"]
    )
    rule: str = Field(examples=["hysteresis"])
    action: Action = Field(examples=["scale_up"])
    current_size: int = Field(description="Connections open when it was made.", examples=[5])
    new_size: int = Field(description="The recommended max_size.", examples=[10])
    reason_code: ReasonCode = Field(examples=["queue_above_target"])
    reason: str = Field(examples=["8 requests waiting (threshold 3); grown by 5"])
    max_size: int = Field(description="The max_size in force when it was made.", examples=[5])
    metrics: SampleView = Field(description="The sample it rests on.")
    status: RecommendationStatus = Field(examples=["open"])
    created_at: datetime = Field(examples=["2026-11-20T09:00:00Z"])
    expires_at: datetime = Field(
        description="When it stops being open by itself.", examples=["2026-11-20T09:05:00Z"]
    )
    closed_at: datetime | None = Field(examples=[None])
    closed_by: str | None = Field(description="Who applied or dismissed it.", examples=[None])

    @classmethod
    def of(cls, recommendation: Recommendation) -> RecommendationView:
        """A recommendation in the API's words."""
        advice, sample = recommendation.advice, recommendation.metrics
        return cls(
            id=recommendation.id,
            pool=recommendation.pool_id,
            tenant=recommendation.tenant,
            rule=recommendation.rule,
            action=advice.action,
            current_size=advice.current_size,
            new_size=advice.new_size,
            reason_code=advice.reason_code,
            reason=advice.reason,
            max_size=recommendation.max_size,
            metrics=SampleView(
                total_connections=sample.total_connections,
                idle_connections=sample.idle_connections,
                active_connections=sample.active_connections,
                waiting_requests=sample.waiting_requests,
            ),
            status=recommendation.status,
            created_at=recommendation.created_at,
            expires_at=recommendation.expires_at,
            closed_at=recommendation.closed_at,
            closed_by=recommendation.closed_by,
        )


class RecommendationList(BaseModel):
    """One page of recommendations, newest first."""

    items: list[RecommendationView]
    next_cursor: str | None = Field(
        description="For the next page; null on the last one.", examples=[None]
    )
    stale: bool = Field(
        description="The catalog is away: these are the open ones, from memory.", examples=[False]
    )


@router.get("", summary="List recommendations", responses=documented())
async def list_recommendations(  # noqa: PLR0917 - one parameter per filter
    service: ServiceDep,
    status: Annotated[
        RecommendationStatus | None, Query(description="Only those of which this became.")
    ] = None,
    tenant: TenantQuery = None,
    pool: PoolQuery = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> RecommendationList:
    """What the advisor said, newest first, and what became of it.

    A shared pool belongs to no single tenant: ask for it with `pool`. While the catalog is away
    the open ones are answered from memory, with `stale: true`.
    """
    before = _position(cursor) if cursor else None
    stale = False
    try:
        found = await service.catalog.recommendations.page(
            status=status, pool_id=pool, tenant=tenant, before=before, limit=limit + 1
        )
    except CatalogUnavailable:
        if status not in (None, RecommendationStatus.OPEN):  # in the catalog alone
            raise
        found, stale = _open(service, tenant=tenant, pool=pool, before=before), True
    items, next_cursor = page_of(found, limit, _key)
    return RecommendationList(
        items=[RecommendationView.of(each) for each in items], next_cursor=next_cursor, stale=stale
    )


@router.post(
    "/{id}/apply",  # noqa: FAST003 - it is the parameter's alias
    summary="Apply a recommendation",
    responses=documented(404, 409),
)
async def apply_recommendation(
    recommendation_id: RecommendationId, service: ServiceDep, actor: ActorDep
) -> RecommendationView:
    """Give the pool the recommended `max_size`, recorded like any other change of it.

    One that is no longer open answers 409 `recommendation-closed`.
    """
    return RecommendationView.of(await service.advising.apply(recommendation_id, actor))


@router.post(
    "/{id}/dismiss",  # noqa: FAST003 - it is the parameter's alias
    summary="Dismiss a recommendation",
    responses=documented(404, 409),
)
async def dismiss_recommendation(
    recommendation_id: RecommendationId, service: ServiceDep, actor: ActorDep
) -> RecommendationView:
    """Leave the pool as it is.

    One that is no longer open answers 409 `recommendation-closed`.
    """
    return RecommendationView.of(await service.advising.dismiss(recommendation_id, actor))


def _key(recommendation: Recommendation) -> tuple[str, str]:
    return recommendation.created_at.isoformat(), str(recommendation.id)


def _position(cursor: str) -> tuple[datetime, UUID]:
    key = decode_cursor(cursor, str, str)
    try:
        return _POSITION.validate_python(key)
    except ValidationError as error:
        raise invalid(
            "query", "cursor", code="bad_cursor", detail="It is no cursor of this list."
        ) from error


def _open(
    service: Service,
    *,
    tenant: str | None,
    pool: str | None,
    before: tuple[datetime, UUID] | None,
) -> tuple[Recommendation, ...]:
    """The open ones that fit, as the catalog would sort them."""
    found = [
        each
        for each in service.advising.open.values()
        if (tenant is None or each.tenant == tenant)
        and (pool is None or each.pool_id == pool)
        and (before is None or (each.created_at, each.id) < before)
    ]
    return tuple(sorted(found, key=lambda each: (each.created_at, each.id), reverse=True))
