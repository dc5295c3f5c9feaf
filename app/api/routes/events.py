"""The audit trail, newest first; what is not stored yet is served from memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.auth.authenticator import REQUIRE_READ
from app.api.auth.principal import Principal
from app.api.http.datetimes import Timestamp
from app.api.http.dependencies import CursorQuery, LimitQuery, PrincipalDep, Service, ServiceDep
from app.api.http.error_responses import problem_responses
from app.api.http.paging import decode_cursor, paginate
from app.api.http.strict_route import StrictRoute
from app.domain.audit import AuditEvent
from app.domain.errors import CatalogUnavailable
from app.domain.tenant import TENANT_ID_PATTERN

POOL_ID_PATTERN = r"^(shared@)?[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$"

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=StrictRoute)

TenantQuery = Annotated[
    str | None, Query(pattern=TENANT_ID_PATTERN, max_length=48, description="Only of this tenant.")
]
PoolQuery = Annotated[
    str | None,
    Query(
        pattern=POOL_ID_PATTERN,
        max_length=60,
        description="Only of this pool: a tenant's id, or `shared@` and a server's name.",
    ),
]


class EventView(BaseModel):
    """One change: who, what, when, why, from what to what."""

    id: int | None = Field(
        description="Its number; null while it is not stored.", ge=1, examples=[42]
    )
    at: datetime = Field(examples=["2026-07-14T12:00:00Z"])
    actor: str = Field(
        description="A key's name, `api` without keys, or the part of the service that did it.",
        examples=["api"],
    )
    request_id: str | None = Field(
        description="The request that did it, as in the log.", examples=["5d1c4a2e8b7f4c6d"]
    )
    action: str = Field(examples=["pool.resized"])
    tenant: str | None = Field(examples=["acme"])
    pool: str | None = Field(examples=["acme"])
    reason: str | None = Field(examples=["8 requests waiting (threshold 3); grown by 5"])
    before: Mapping[str, Any] | None = Field(
        examples=[{"min_size": 0, "max_size": 5, "warmup_size": 1, "paused": False}]
    )
    after: Mapping[str, Any] | None = Field(
        examples=[{"min_size": 0, "max_size": 10, "warmup_size": 1, "paused": False}]
    )

    @classmethod
    def of(cls, event: AuditEvent) -> EventView:
        """An event in the API's words."""
        return cls(
            id=event.id,
            at=event.at,
            actor=event.actor.name,
            request_id=event.actor.request_id,
            action=event.action,
            tenant=event.tenant,
            pool=event.pool,
            reason=event.reason,
            before=event.before,
            after=event.after,
        )


class EventList(BaseModel):
    """One page of events, newest first."""

    items: list[EventView]
    next_cursor: str | None = Field(description="Of the next page; null on the last one.")
    stale: bool = Field(
        description="The catalog is away: these are the events that could not be stored yet.",
        examples=[False],
    )


@router.get("", dependencies=[REQUIRE_READ], responses=problem_responses(), summary="List events")
async def list_events(  # noqa: PLR0917 - one parameter per filter
    service: ServiceDep,
    caller: PrincipalDep,
    tenant: TenantQuery = None,
    pool: PoolQuery = None,
    action: Annotated[
        str | None,
        Query(pattern=r"^[a-z]+\.[a-z_]+$", max_length=64, description="Only this action."),
    ] = None,
    since: Annotated[
        Timestamp | None, Query(description="Only at this moment or later, RFC 3339.")
    ] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> EventList:
    """Who changed what, when and why, newest first.

    Changes of desired state are stored together with their event. Events of operations and of the
    service's own doing are kept in memory while the catalog is away; they are answered then, with
    `stale: true`. A key that is bound to tenants is shown their events alone.
    """
    wanted = {"tenant": tenant, "pool": pool, "action": action}
    before_id = decode_cursor(cursor, int)[0] if cursor else None
    try:
        found = await service.catalog.audit_log.page(
            **wanted, since=since, before_id=before_id, limit=limit + 1, among=caller.tenants
        )
    except CatalogUnavailable:
        if cursor:  # what follows is in the catalog alone
            raise
        kept = islice(_kept(service, wanted, since, caller), limit)
        return EventList(items=[EventView.of(each) for each in kept], next_cursor=None, stale=True)
    items, next_cursor = paginate(found, limit, lambda event: (event.id or 0,))
    return EventList(
        items=[EventView.of(event) for event in items], next_cursor=next_cursor, stale=False
    )


def _kept(
    service: Service, wanted: Mapping[str, str | None], since: datetime | None, caller: Principal
) -> Iterable[AuditEvent]:
    """The events in memory that fit, newest first."""
    for event in reversed(service.audit_outbox.pending):
        fits = all(value is None or getattr(event, name) == value for name, value in wanted.items())
        if fits and caller.can_access(event.tenant) and (since is None or event.at >= since):
            yield event
