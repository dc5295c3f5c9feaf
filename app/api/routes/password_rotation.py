"""The password of a tenant's login role: rotate it. It is never shown and never accepted."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_ADMIN
from app.api.http.dependencies import provided
from app.api.http.strict_route import StrictRoute
from app.api.routes.pool import PoolRequestDep
from app.api.views.plan import PlanView
from app.control.tenants.password_rotation import PasswordRotation

router = APIRouter(
    prefix="/v1/tenants/{tenant}/rotate-credentials", tags=["tenants"], route_class=StrictRoute
)


class CredentialRotation(BaseModel):
    """The result of a password rotation."""

    tenant: str = Field(examples=["acme"])
    role: str = Field(description="The role whose password was changed.", examples=["tenant_acme"])
    version: int = Field(description="Version of the password, from 1.", examples=[2])
    tenants: int = Field(description="Number of tenants that log in as this role.")
    connections: int = Field(
        description="Connections that are replaced: idle ones at once, leased ones when they are "
        "returned.",
        examples=[3],
    )


@router.post("", dependencies=[REQUIRE_ADMIN], summary="Rotate the password of a tenant's role")
async def rotate_credentials(
    request: PoolRequestDep, rotation: Annotated[PasswordRotation, provided(PasswordRotation)]
) -> CredentialRotation | PlanView:
    """Gives the role that the tenant logs in as a new password, without interrupting a lease.

    Active sessions continue; connections are replaced as they become free. This also repairs a
    role that changed its own password. Shared tenants have one role, so theirs needs `scope=pool`.
    """
    return await request.run(
        rotation.rotate,
        lambda rotated: CredentialRotation(
            tenant=request.tenant,
            role=rotated.role,
            version=rotated.version,
            tenants=rotated.tenants,
            connections=rotated.recycled,
        ),
    )
