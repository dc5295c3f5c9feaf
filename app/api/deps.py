"""What routes are given: the service's objects, the caller, and the common parameters.

Only fetches; decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Depends, Path, Query, Request

from app.catalog.catalog import Catalog
from app.control.advising import Advising
from app.control.checker import Checker
from app.control.journal import Journal
from app.control.keeper import Keeper
from app.control.operations import Operations
from app.control.poller import Poller
from app.control.reconciler import Reconciler
from app.control.ticker import Loops
from app.control.wishes import PoolWishes
from app.domain.event import Actor
from app.domain.tenant import TENANT_ID_PATTERN, PoolStrategy, TenantId
from app.pools.lag import LoopLag
from app.pools.manager import TenantPoolManager


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the operator's settings mean for requests.

    Attributes:
        default_server, default_strategy: of tenants that name none; None if one must be named.
        query_on_shared: names of the servers whose shared tenants may use the query endpoint.
        query_timeout: longest statement of the query endpoint, in seconds.
        query_max_rows: most rows it returns.
        poll_interval: seconds between two polls.
        poll_deadline: most seconds one poll may take.
    """

    default_server: str | None
    default_strategy: PoolStrategy
    query_on_shared: frozenset[str]
    query_timeout: float
    query_max_rows: int
    poll_interval: float
    poll_deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Every object a route may use, wired by `app.main`."""

    manager: TenantPoolManager
    keeper: Keeper
    wishes: PoolWishes
    operations: Operations
    advising: Advising
    poller: Poller
    checker: Checker
    reconciler: Reconciler
    journal: Journal
    catalog: Catalog
    loops: Loops
    lag: LoopLag
    limits: Limits


def get_service(request: Request) -> Service:
    """The running service."""
    service: Service = request.app.state.service
    return service


def get_actor() -> Actor:
    """On whose behalf the request is: with keys (a later version), the key's name."""
    return Actor(name="api", request_id=correlation_id.get())


def get_tenant_id(
    tenant: Annotated[
        str,
        Path(
            description="A tenant's id: 1 to 48 of a-z, 0-9 and inner hyphens.",
            pattern=TENANT_ID_PATTERN,
            max_length=48,
            examples=["acme"],
        ),
    ],
) -> TenantId:
    """The tenant named in the path, valid and not reserved."""
    return TenantId(tenant)


ServiceDep = Annotated[Service, Depends(get_service)]
ActorDep = Annotated[Actor, Depends(get_actor)]
TenantDep = Annotated[TenantId, Depends(get_tenant_id)]
LimitQuery = Annotated[int, Query(ge=1, le=500, description="Most items to return.")]
CursorQuery = Annotated[
    str | None,
    Query(max_length=200, description="The `next_cursor` of the page before."),
]
DeadlineQuery = Annotated[
    float,
    Query(
        ge=0,
        le=300,
        allow_inf_nan=False,
        description="How long leases may go on, in seconds; then they are cut.",
    ),
]
