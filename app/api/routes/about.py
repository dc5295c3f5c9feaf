"""About the service: its version, and where its documents and dashboards are."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app import __version__
from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import provided
from app.api.http.strict_route import StrictRoute
from app.control.leadership.election import Election

router = APIRouter(prefix="/v1/about", tags=["health"], route_class=StrictRoute)


class Links(BaseModel):
    """Links to more information, as configured by the operator."""

    documents_url: str | None = Field(
        description="The documents; null if not set.", examples=["https://docs.example/poolkeeper/"]
    )
    grafana_url: str | None = Field(
        description="Grafana with the dashboards; null if not set.",
        examples=["https://grafana.example/"],
    )


class ActiveInstance(BaseModel):
    """The instance that answers."""

    id: str = Field(description="New at each start.", examples=["3f2a9c1b"])
    url: str | None = Field(
        description="URL at which other instances reach it; null if it runs alone.",
        examples=["http://10.0.0.7:8080"],
    )


class About(Links):
    """The service."""

    version: str = Field(examples=["0.1.0"])
    instance: ActiveInstance


@router.get("", dependencies=[REQUIRE_READ], summary="Get the version")
async def get_about(
    links: Annotated[Links, provided(Links)], election: Annotated[Election, provided(Election)]
) -> About:
    """Shows the version, the active instance, and the addresses that the settings name."""
    instance = election.instance
    return About(
        version=__version__,
        instance=ActiveInstance(id=instance.id, url=instance.url),
        **links.model_dump(),
    )
