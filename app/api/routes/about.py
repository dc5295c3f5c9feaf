"""About the service: its version, and where its documents and dashboards are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app import __version__
from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import provided
from app.api.http.error_responses import problem_responses
from app.api.http.strict_route import StrictRoute

router = APIRouter(prefix="/v1/about", tags=["health"], route_class=StrictRoute)


class Links(BaseModel):
    """Where more is to be found, as the operator set it."""

    documents_url: str | None = Field(
        description="The documents; null if not set.", examples=["https://docs.example/poolkeeper/"]
    )
    grafana_url: str | None = Field(
        description="Grafana with the dashboards; null if not set.",
        examples=["https://grafana.example/"],
    )


class About(Links):
    """The service."""

    version: str = Field(examples=["0.1.0"])


@router.get(
    "", dependencies=[REQUIRE_READ], summary="Get the version", responses=problem_responses()
)
async def get_about(links: Annotated[Links, provided(Links)]) -> About:
    """Shows the service's version, and the addresses set by `documents_url` and `grafana_url`."""
    return About(version=__version__, **links.model_dump())
