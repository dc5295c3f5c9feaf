"""What routes are given: the service's objects, the caller, and the common parameters.

Only fetches; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Depends, Path, Query, Request

from app.api.auth import Door
from app.api.caller import Caller
from app.api.deadline import allow
from app.api.exposition import Exposition
from app.api.streams import Streams
from app.catalog.catalog import Catalog
from app.control.advising import Advising
from app.control.checker import Checker
from app.control.journal import Journal
from app.control.keeper import Keeper
from app.control.lock_guard import LockGuard
from app.control.obeying import Obeying
from app.control.observing import Observing
from app.control.operations import Operations
from app.control.poller import Poller
from app.control.previews import Previews
from app.control.provisioning import Provisioning
from app.control.reconciler import Reconciler
from app.control.roll_up import RollUp
from app.control.snapshots import Snapshots
from app.control.ticker import Loops
from app.control.wishes import PoolWishes
from app.domain.errors import TenantNotFound
from app.domain.event import Actor
from app.domain.tenant import TENANT_ID_PATTERN, PoolStrategy, TenantId
from app.pools.lag import LoopLag
from app.pools.manager import TenantPoolManager
from app.pools.server_load import ServerLoads


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
        health_check_interval: seconds between two checks of the same pool or tenant.
    """

    default_server: str | None
    default_strategy: PoolStrategy
    query_on_shared: frozenset[str]
    query_timeout: float
    query_max_rows: int
    poll_interval: float
    poll_deadline: float
    health_check_interval: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Every object a route may use, wired by `app.main`."""

    manager: TenantPoolManager
    keeper: Keeper
    provisioning: Provisioning
    wishes: PoolWishes
    operations: Operations
    advising: Advising
    obeying: Obeying
    observing: Observing
    loads: ServerLoads
    poller: Poller
    roll_up: RollUp
    checker: Checker
    reconciler: Reconciler
    journal: Journal
    lock_guards: Mapping[str, LockGuard]
    catalog: Catalog
    loops: Loops
    lag: LoopLag
    snapshots: Snapshots
    exposition: Exposition
    streams: Streams
    previews: Previews
    limits: Limits


# All of them are coroutines: FastAPI would hand a plain function to a thread.


async def get_service(request: Request) -> Service:
    """The running service."""
    service: Service = request.app.state.service
    return service


async def get_door(request: Request) -> Door:
    """Who lets callers in."""
    door: Door = request.app.state.door
    return door


async def get_caller(request: Request) -> Caller:
    """Who asks."""
    caller: Caller = request.state.caller
    return caller


async def get_actor(caller: Annotated[Caller, Depends(get_caller)]) -> Actor:
    """On whose behalf the request is: the key's name, for the log and the audit trail."""
    return Actor(name=caller.name, request_id=correlation_id.get())


async def get_tenant_id(
    tenant: Annotated[
        str,
        Path(
            description="A tenant's id: 1 to 48 of a-z, 0-9 and inner hyphens.",
            pattern=TENANT_ID_PATTERN,
            max_length=48,
            examples=["acme"],
        ),
    ],
    caller: Annotated[Caller, Depends(get_caller)],
) -> TenantId:
    """The tenant named in the path, valid, not reserved, and one that exists for the caller.

    Raises:
        InvalidTenantId: it is reserved.
        TenantNotFound: the caller's key is bound to others, whether or not there is this one.
    """
    found = TenantId(tenant)
    if not caller.sees(found):
        raise TenantNotFound(f"There is no tenant {found}.")
    return found


async def get_deadline(
    request: Request,
    deadline_seconds: Annotated[
        float,
        Query(
            ge=0,
            le=300,
            allow_inf_nan=False,
            description="How long leases may go on, in seconds; then they are cut.",
        ),
    ] = 5.0,
) -> float:
    """How long leases may go on; the request may take as much longer."""
    allow(request, deadline_seconds)
    return deadline_seconds


ServiceDep = Annotated[Service, Depends(get_service)]
ActorDep = Annotated[Actor, Depends(get_actor)]
CallerDep = Annotated[Caller, Depends(get_caller)]
DoorDep = Annotated[Door, Depends(get_door)]
TenantDep = Annotated[TenantId, Depends(get_tenant_id)]
LimitQuery = Annotated[int, Query(ge=1, le=500, description="Most items to return.")]
CursorQuery = Annotated[
    str | None,
    Query(max_length=200, description="The `next_cursor` of the page before."),
]
DeadlineDep = Annotated[float, Depends(get_deadline)]
