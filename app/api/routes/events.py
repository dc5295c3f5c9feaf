"""The audit trail, newest first. Events that are not stored yet are served from memory."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import (
    CatalogDep,
    CursorQuery,
    LimitQuery,
    PrincipalDep,
    provided,
)
from app.api.http.field_types import Timestamp
from app.api.http.paging import NextCursor, decode_cursor, paginate
from app.api.http.strict_route import StrictRoute
from app.control.audit_outbox import AuditOutbox
from app.control.time_slices import in_slices
from app.domain.audit import AuditEvent, Origin
from app.domain.errors import CatalogUnavailable
from app.domain.tenant import TENANT_ID_PATTERN

POOL_ID_PATTERN = r"^(shared@)?[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$"

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=StrictRoute)

TenantQuery = Annotated[
    str | None,
    Query(pattern=TENANT_ID_PATTERN, max_length=48, description="Filter by tenant."),
]
PoolQuery = Annotated[
    str | None,
    Query(
        pattern=POOL_ID_PATTERN,
        max_length=60,
        description="Filter by pool: a tenant's ID, or `shared@` and a server's name.",
    ),
]


class EventView(BaseModel):
    """An audit event: who changed what, when, why, from what to what."""

    id: int | None = Field(description="Null while it is not stored.", ge=1, examples=[42])
    at: datetime = Field(examples=["2026-07-14T12:00:00Z"])
    actor: str = Field(
        description="An API key's name, `api` without keys, or a part of the service.",
        examples=["api"],
    )
    request_id: str | None = Field(
        description="ID of the request, as in the log.", examples=["5d1c4a2e8b7f4c6d"]
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
    def of(cls, event: AuditEvent) -> Self:
        # Not `asdict`, which copies the labels of tenants one by one.
        shown = {each.name: getattr(event, each.name) for each in fields(event)}
        actor = {"actor": event.actor.name, "request_id": event.actor.request_id}
        return cls(**shown | actor)


class EventList(BaseModel):
    """A page of events, newest first."""

    items: list[EventView]
    next_cursor: NextCursor
    stale: bool = Field(
        description="Whether the catalog is unreachable: only events that are not stored yet.",
        examples=[False],
    )


@router.get("", dependencies=[REQUIRE_READ], summary="List events")
async def list_events(  # noqa: PLR0917 - one parameter per filter
    catalog: CatalogDep,
    outbox: Annotated[AuditOutbox, provided(AuditOutbox)],
    principal: PrincipalDep,
    tenant: TenantQuery = None,
    pool: PoolQuery = None,
    action: Annotated[
        str | None,
        Query(pattern=r"^[a-z]+\.[a-z_]+$", max_length=64, description="Filter by action."),
    ] = None,
    actor: Annotated[
        str | None,
        Query(
            pattern=r"^[\x20-\x7e]+$",
            max_length=64,
            description="Filter by actor: an API key's name, or a part of the service.",
        ),
    ] = None,
    origin: Annotated[
        Origin | None,
        Query(
            description="Filter by where changes come from: `request`, or `service` for what the "
            "service did by itself, such as evictions of pools that nobody used."
        ),
    ] = None,
    since: Annotated[
        Timestamp | None, Query(description="Earliest time to include, RFC 3339.")
    ] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> EventList:
    """Lists who changed what, when and why, newest first.

    A change of desired state and its event are stored together. Events of operations and of the
    service itself stay in memory while the catalog is unreachable; then only these are listed,
    with `stale: true`. A key that is bound to tenants sees only their events.
    """
    equal = {"tenant": tenant, "pool": pool, "action": action}
    before_id = decode_cursor(cursor, int)[0] if cursor else None
    try:
        found = await catalog.audit_log.page(
            **equal,
            actor=actor,
            origin=origin,
            since=since,
            before_id=before_id,
            limit=limit + 1,
            among=principal.tenants,
        )
    except CatalogUnavailable:
        if cursor:  # only the catalog has the next page
            raise
        matching: list[AuditEvent] = []
        async for event in in_slices(reversed(outbox.pending)):
            if (
                principal.can_access(event.tenant)
                and origin in {None, Origin.of(event.actor)}
                and (since is None or event.at >= since)
                and actor in {None, event.actor.name}
                and all(value in {None, getattr(event, name)} for name, value in equal.items())
            ):
                matching.append(event)
            if len(matching) == limit:
                break
        found, next_cursor, stale = tuple(matching), None, True
    else:
        page, next_cursor = paginate(found, limit, lambda event: (event.id or 0,))
        found, stale = tuple(page), False
    items = [EventView.of(event) async for event in in_slices(found)]
    return EventList(items=items, next_cursor=next_cursor, stale=stale)
