"""Dependencies of routes: objects of the service, the principal, and common parameters."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from asgi_correlation_id import correlation_id
from fastapi import Depends, Path, Query, Request

from app.api.auth.authenticator import Authenticator
from app.api.auth.principal import Principal
from app.api.http.exchange import extend_deadline
from app.api.http.response_cache import ResponseCache
from app.catalog.catalog import Catalog
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.nodes.feed import NodeFeed
from app.control.nodes.fleet import Fleet
from app.domain.audit import Actor
from app.domain.errors import TenantNotFound
from app.domain.tenant import TENANT_ID_PATTERN, PoolStrategy, TenantId
from app.pools.manager import TenantPoolManager

Provided = TypeVar("Provided")

LONGEST_LEASE_DEADLINE = 300
"""The most seconds that a request may give leases before they are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantDefaults:
    """The defaults of a tenant that names no server or strategy; None: the tenant must name it."""

    server: str | None
    strategy: PoolStrategy


# All of them are coroutines: FastAPI would run a plain function in a thread.


def provided(kind: type[Provided]) -> Any:  # noqa: ANN401 - FastAPI's, whose class is private
    """The running service's object of this class; `app.main` puts it there."""

    async def get(request: Request) -> Provided | None:
        # None before the service runs; invalid requests are refused even then.
        found: Provided | None = request.app.state.provided.get(kind)
        return found

    return Depends(get)


def of_application(name: str) -> Any:  # noqa: ANN401 - as above
    """The object of this name in the application's state, before the service runs, too."""

    async def get(request: Request) -> object:
        return getattr(request.app.state, name)

    return Depends(get)


async def get_principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def get_actor(principal: Annotated[Principal, Depends(get_principal)]) -> Actor:
    """The author of the request, for the log and the audit trail."""
    return Actor(name=principal.name, request_id=correlation_id.get())


def name_in_path(of: str, example: str, *, alias: str | None = None) -> Any:  # noqa: ANN401 - as above
    """A path parameter that is a name."""
    return Path(
        alias=alias,
        description=f"{of}: 1 to 48 of a-z, 0-9 and inner hyphens.",
        pattern=TENANT_ID_PATTERN,
        max_length=48,
        examples=[example],
    )


async def get_tenant_id(
    tenant: Annotated[str, name_in_path("Tenant ID", "acme")],
    principal: Annotated[Principal, Depends(get_principal)],
) -> TenantId:
    """The tenant in the path.

    Raises:
        InvalidTenantId: the id is reserved.
        TenantNotFound: the principal cannot access it, whether or not it exists.
    """
    found = TenantId(tenant)
    if not principal.can_access(found):
        raise TenantNotFound(f"There is no tenant {found}.")
    return found


async def get_deadline(
    request: Request,
    deadline_seconds: Annotated[
        float,
        Query(
            ge=0,
            le=LONGEST_LEASE_DEADLINE,
            allow_inf_nan=False,
            description="Seconds that active leases get to end before they are cut.",
        ),
    ] = 5.0,
) -> float:
    """Return the deadline for leases; extend the request's deadline by it."""
    extend_deadline(request, deadline_seconds)
    return deadline_seconds


ManagerDep = Annotated[TenantPoolManager, provided(TenantPoolManager)]
CatalogDep = Annotated[Catalog, provided(Catalog)]
AdvisorDep = Annotated[AdvisorLoop, provided(AdvisorLoop)]
FleetDep = Annotated[Fleet, provided(Fleet)]
FeedDep = Annotated[NodeFeed, provided(NodeFeed)]
ResponseCacheDep = Annotated[ResponseCache, provided(ResponseCache)]
AuthenticatorDep = Annotated[Authenticator, of_application("authenticator")]
ActorDep = Annotated[Actor, Depends(get_actor)]
PrincipalDep = Annotated[Principal, Depends(get_principal)]
TenantDep = Annotated[TenantId, Depends(get_tenant_id)]
ServerQuery = Annotated[str | None, Query(max_length=48, description="Filter by server.")]
StrategyQuery = Annotated[PoolStrategy | None, Query(description="Filter by strategy.")]
LimitQuery = Annotated[int, Query(ge=1, le=500, description="Maximum number of items.")]
CursorQuery = Annotated[
    str | None,
    Query(max_length=200, description="The `next_cursor` of the previous page."),
]
DeadlineDep = Annotated[float, Depends(get_deadline)]
