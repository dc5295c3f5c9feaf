"""The instances of the service: which one is active, and which ones stand by."""

from dataclasses import asdict
from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import CatalogDep
from app.api.http.strict_route import StrictRoute
from app.api.routes.about import ActiveInstance
from app.domain.leadership import InstanceRecord, InstanceState

router = APIRouter(prefix="/v1/instances", tags=["health"], route_class=StrictRoute)


class InstanceView(ActiveInstance):
    """One process of the service."""

    version: str = Field(examples=["0.9.0"])
    state: InstanceState = Field(description="`active` or `standby`.", examples=["active"])
    started_at: datetime = Field(examples=["2026-11-20T09:12:34Z"])
    seen_at: datetime = Field(
        description="When it last reported to the catalog that it runs; every 2 s at least.",
        examples=["2026-11-21T10:00:02Z"],
    )
    active_since: datetime | None = Field(
        description="Null for a standby.", examples=["2026-11-20T17:40:11Z"]
    )
    epoch: int | None = Field(
        description="Grows with each change of the active instance; null for a standby.",
        examples=[28785600],
    )


class InstanceList(BaseModel):
    """The instances that run, the active one first; one that crashed is listed for 10 s."""

    items: list[InstanceView]
    next_cursor: None = Field(description="All of them are on one page.")


@router.get("", dependencies=[REQUIRE_READ], summary="List the service's instances")
async def list_instances(catalog: CatalogDep) -> InstanceList:
    """Lists which instance is active, since when, and which ones stand by. Asks the catalog."""
    return InstanceList(
        items=[_view(each) for each in await catalog.instances.load()], next_cursor=None
    )


def _view(record: InstanceRecord) -> InstanceView:
    is_active = record.epoch is not None
    return InstanceView(
        **asdict(record),
        state=InstanceState.ACTIVE if is_active else InstanceState.STANDBY,
        active_since=record.acquired_at,
    )
