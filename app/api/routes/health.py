"""Liveness without I/O; readiness of this instance, and of the active one."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import PrincipalDep, of_application
from app.api.http.error_responses import problem_responses
from app.api.http.strict_request import StrictRequest
from app.api.http.strict_route import StrictRoute
from app.api.views.readiness import Readiness, ReadinessChecks

# These routes take no input and raise no expected error.
_INTERNAL_ERROR: dict[int | str, dict[str, Any]] = {500: problem_responses()[500]}

router = APIRouter(tags=["health"])
v1_router = APIRouter(prefix="/v1/readiness", tags=["health"], route_class=StrictRoute)


class Liveness(BaseModel):
    """The process responds."""

    status: Literal["alive"] = Field(examples=["alive"])


_ALIVE = Liveness(status="alive")


# The checks of this instance in its present state.
ChecksDep = Annotated[ReadinessChecks, of_application("readiness")]


@router.get(
    "/livez",
    operation_id="livez",
    summary="Check liveness",
    openapi_extra={"security": []},
    responses=_INTERNAL_ERROR,
)
async def livez() -> Liveness:
    """Answers as long as the process runs. Uses neither Postgres nor the disk."""
    return _ALIVE


async def respond_alive(_: StrictRequest) -> Response:
    """Respond like `livez`."""
    return Response(_ALIVE.model_dump_json(), media_type="application/json")


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Check readiness",
    # The key is optional: details need one.
    openapi_extra={"security": [{}, {"key": ["read"]}]},
    responses=_INTERNAL_ERROR
    | {503: {"model": Readiness, "description": "Not ready; `checks` says why."}},
)
async def readyz(checks: ChecksDep, principal: PrincipalDep, response: Response) -> Readiness:
    """Checks the background tasks, the catalog (once a second at most) and the servers.

    The checks of catalog, servers, isolation and keys are for information only: without the
    catalog, pools keep serving and nothing can be changed.
    A standby checks whether it can take over, and whether an active instance that works answers it.
    """
    readiness = Readiness.of(await checks.run(), principal)
    response.headers["Cache-Control"] = "no-store"
    response.status_code = 200 if readiness.status == "ready" else 503
    return readiness


@v1_router.get("", dependencies=[REQUIRE_READ], summary="Check the active instance")
async def get_readiness(checks: ChecksDep, principal: PrincipalDep) -> Readiness:
    """Shows what `/readyz` of the active instance shows; its status is 200 even if that is 503.

    `/readyz` is about the instance that gets the request, which may be a standby.
    """
    return Readiness.of(await checks.run(), principal)
