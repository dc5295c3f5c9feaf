"""Rotation of the password of a tenant's login role; it is neither shown nor accepted."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth.authenticator import REQUIRE_ADMIN
from app.api.http.error_responses import problem_responses
from app.api.http.strict_route import StrictRoute
from app.api.routes.pool import PoolRequestDep
from app.api.views.plan import PlanView

router = APIRouter(
    prefix="/v1/tenants/{tenant}/rotate-credentials", tags=["tenants"], route_class=StrictRoute
)


class CredentialRotation(BaseModel):
    """What rotating a password did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tenant": "acme",
                    "role": "tenant_acme",
                    "version": 2,
                    "tenants": 1,
                    "connections": 3,
                }
            ]
        }
    )

    tenant: str
    role: str = Field(description="The role whose password was rotated.")
    version: int = Field(description="Version of the password; the first one is 1.")
    tenants: int = Field(description="How many tenants log in as that role.")
    connections: int = Field(
        description="Connections that are replaced: idle ones at once, leased ones when they are "
        "returned."
    )


@router.post(
    "",
    dependencies=[REQUIRE_ADMIN],
    summary="Rotate the password of a tenant's role",
    responses=problem_responses(404, 409),
)
async def rotate_credentials(request: PoolRequestDep) -> CredentialRotation | PlanView:
    """Give the role that the tenant logs in as a new password, without failing a borrower.

    Active sessions go on; connections are replaced as they become free. It also repairs a role
    that changed its own password. Shared tenants have one role, so theirs needs `scope=pool`.
    """
    operation = request.service.rotation.rotate(
        request.state, request.actor, whole_pool=request.whole_pool
    )
    return await request.operation.run(
        operation,
        lambda rotation: CredentialRotation(
            tenant=request.tenant,
            role=rotation.role,
            version=rotation.version,
            tenants=rotation.tenants,
            connections=rotation.recycled,
        ),
    )
