"""Readiness of the active instance, whichever instance gets the request."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import PrincipalDep
from app.api.http.strict_route import StrictRoute
from app.api.routes.health import Readiness, ReadinessChecks, get_checks

router = APIRouter(prefix="/v1/readiness", tags=["health"], route_class=StrictRoute)


@router.get("", dependencies=[REQUIRE_READ], summary="Check the active instance")
async def get_readiness(
    checks: Annotated[ReadinessChecks, Depends(get_checks)], principal: PrincipalDep
) -> Readiness:
    """Shows what `/readyz` of the active instance shows; its status is 200 even if that is 503.

    `/readyz` is about the instance that gets the request, which may be a standby.
    """
    return Readiness.of(await checks.run(), principal)
