"""Credentials of applications: list, show, create and revoke. A password is shown once."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Request, Response, status
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from app.api.http.authentication import REQUIRE_ADMIN
from app.api.http.dependencies import (
    CursorQuery,
    FeedDep,
    FleetDep,
    LimitQuery,
    ManagerDep,
    TenantDep,
    name_in_path,
    provided,
)
from app.api.http.etags import PreconditionsDep, etag, instance_of
from app.api.http.field_types import Name, RequestBody, Timestamp, examples
from app.api.http.idempotency import mark_secret
from app.api.http.paging import NextCursor, page_of_names
from app.api.http.strict_route import StrictRoute
from app.api.views.plan import OperationDep, PlanView
from app.control.tenants.application_credentials import ApplicationCredentials, IssuedCredential
from app.domain.application_credential import ApplicationCredential

router = APIRouter(
    prefix="/v1/tenants/{tenant}/credentials", tags=["credentials"], route_class=StrictRoute
)

_PASSWORD = "wCvMZh4ZP1kYb2HqkqS9cJv8m3nXoT7dLr5uAe0Gf6E"  # noqa: S105 - an example
# They never change; what is replaced has another instance.
_GENERATION = 1


def _in_future(timestamp: datetime) -> datetime:
    if timestamp <= datetime.now(UTC):
        raise PydanticCustomError("not_in_future", "Must be in the future.")
    return timestamp


_Expiry = Annotated[Timestamp, AfterValidator(_in_future), Field(strict=False)]
NamePath = Annotated[str, name_in_path("Name of the credential", "web", alias="credential")]
CredentialsDep = Annotated[ApplicationCredentials, provided(ApplicationCredentials)]


class CredentialBody(RequestBody):
    """A new credential."""

    model_config = examples({"name": "web"}, {"name": "jobs", "expires_at": "2027-11-20T09:00:00Z"})

    name: Name = Field(
        description="Unique within the tenant: 1 to 48 of a-z, 0-9 and inner hyphens."
    )
    expires_at: _Expiry | None = Field(
        default=None, description="It is refused from then on; null: it never expires."
    )


class CredentialView(BaseModel):
    """A credential of an application, without its password."""

    name: str = Field(examples=["web"])
    user: str = Field(
        description="The name to log in with: tenant, dot, name.", examples=["acme.web"]
    )
    created_at: datetime = Field(examples=["2026-11-20T09:00:00Z"])
    expires_at: datetime | None = Field(description="Null: it never expires.", examples=[None])
    expired: bool = Field(description="Whether it has expired.", examples=[False])
    last_used_at: datetime | None = Field(
        description="The last use seen, to the minute; null: none. A node checks every 10 s who is "
        "connected, and misses short connections.",
        examples=[None],
    )

    @classmethod
    def of(cls, credential: ApplicationCredential, **more: Any) -> Self:
        """*more*: fields of a subclass."""
        return cls(
            name=credential.name,
            user=credential.user,
            created_at=credential.created_at,
            expires_at=credential.expires_at,
            expired=credential.is_expired(datetime.now(UTC)),
            last_used_at=credential.last_used_at,
            **more,
        )


class IssuedCredentialView(CredentialView):
    """A new credential, with its password."""

    password: str = Field(
        repr=False,
        description="256 random bits. It is not stored, and never shown again.",
        examples=[_PASSWORD],
    )
    connection_string: str = Field(
        repr=False,
        description="A URL with user, password and database (the tenant's ID). Its host is this "
        "service, as in this request: it is for POST /sql, not for Postgres drivers.",
        examples=[f"postgresql://acme.web:{_PASSWORD}@pools.example.com/acme"],
    )
    node_connection_string: str | None = Field(
        repr=False,
        description="The same with the addresses of all ready nodes that serve the tenant, for "
        "libpq (psql, psycopg), asyncpg and pgx; null if there is none. With one node it is for "
        "any driver.",
        examples=[
            (
                f"postgresql://acme.web:{_PASSWORD}"
                "@node-1.example.com:6432,node-2.example.com:6432/acme"
            )
        ],
    )
    node_connection_strings: list[str] = Field(
        repr=False,
        description="The same for each of these nodes. Many drivers, such as node-pg, take one "
        "host only.",
        examples=[
            [
                f"postgresql://acme.web:{_PASSWORD}@node-1.example.com:6432/acme",
                f"postgresql://acme.web:{_PASSWORD}@node-2.example.com:6432/acme",
            ]
        ],
    )


class CredentialList(BaseModel):
    """A page of credentials."""

    items: list[CredentialView]
    next_cursor: NextCursor


@router.get("", dependencies=[REQUIRE_ADMIN], summary="List a tenant's credentials")
async def list_credentials(
    tenant: TenantDep,
    manager: ManagerDep,
    credentials: CredentialsDep,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> CredentialList:
    """Lists the credentials of a tenant by name, expired ones included; never a password.

    Works while the catalog is unreachable.
    """
    manager.tenants.state(tenant)
    found = {each.name: each for each in credentials.of(tenant)}
    page, next_cursor = page_of_names(found, cursor, limit)
    items = [CredentialView.of(found[name]) for name in page]
    return CredentialList(items=items, next_cursor=next_cursor)


@router.get(
    "/{credential}",  # noqa: FAST003 - it is the parameter's alias
    dependencies=[REQUIRE_ADMIN],
    summary="Get a credential",
)
async def get_credential(
    tenant: TenantDep,
    name: NamePath,
    manager: ManagerDep,
    credentials: CredentialsDep,
    response: Response,
) -> CredentialView:
    """Shows a credential, but not its password. Works while the catalog is unreachable."""
    manager.tenants.state(tenant)
    found = credentials.get(tenant, name)
    response.headers["ETag"] = etag(_GENERATION, instance_of(found.created_at))
    return CredentialView.of(found)


@router.post(
    "",
    dependencies=[REQUIRE_ADMIN, Depends(mark_secret)],
    summary="Create a credential",
    status_code=status.HTTP_201_CREATED,
    responses={200: {"model": PlanView, "description": "The plan of a dry run."}},
)
async def create_credential(
    request: Request,
    tenant: TenantDep,
    body: CredentialBody,
    *,
    manager: ManagerDep,
    credentials: CredentialsDep,
    fleet: FleetDep,
    feed: FeedDep,
    operation: OperationDep,
    response: Response,
) -> IssuedCredentialView | PlanView:
    """Creates a user and a password with which an application connects as the tenant.

    The password is shown once. It is not stored, and neither is this response: a repetition with
    the same idempotency key answers 409 `replay-holds-secret`. A tenant has up to 20 credentials;
    to replace one, create another and revoke the first. Shared tenants have none (409
    `strategy-not-on-nodes`): their role could read other tenants' rows. The response waits until
    the nodes that serve the tenant accept the password, for 5 s at most.
    """

    def show(issued: IssuedCredential) -> IssuedCredentialView:
        credential, password = issued.credential, issued.password
        response.headers["ETag"] = etag(_GENERATION, instance_of(credential.created_at))
        login = f"postgresql://{credential.user}:{password}"
        nodes = fleet.addresses(manager.tenants.state(tenant).tenant.spec)
        return IssuedCredentialView.of(
            credential,
            password=password,
            connection_string=f"{login}@{request.url.netloc}/{tenant}",
            node_connection_string=f"{login}@{','.join(nodes)}/{tenant}" if nodes else None,
            node_connection_strings=[f"{login}@{address}/{tenant}" for address in nodes],
        )

    creation = credentials.create(
        manager.tenants.state(tenant), body.name, operation.actor, expires_at=body.expires_at
    )
    return await operation.run(
        creation, show, then=lambda: feed.settle(manager.tenants.state(tenant).tenant.spec)
    )


@router.delete(
    "/{credential}",  # noqa: FAST003 - it is the parameter's alias
    dependencies=[REQUIRE_ADMIN],
    summary="Revoke a credential",
)
async def revoke_credential(
    tenant: TenantDep,
    name: NamePath,
    *,
    manager: ManagerDep,
    credentials: CredentialsDep,
    feed: FeedDep,
    operation: OperationDep,
    preconditions: PreconditionsDep,
) -> CredentialView | PlanView:
    """Deletes a credential, and returns it. Its password is refused from then on.

    It stays refused if another credential of that name is created later. The response waits until
    the nodes that serve the tenant refuse it, for 5 s at most.
    """
    spec = manager.tenants.state(tenant).tenant.spec
    found = credentials.get(tenant, name)
    preconditions.expected_generation(_GENERATION, instance_of(found.created_at))
    revocation = credentials.revoke(found, operation.actor)
    return await operation.run(revocation, CredentialView.of, then=lambda: feed.settle(spec))
