"""What routes are given: the service's objects, the caller, and the common parameters.

Only fetches; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Depends, Path, Query, Request

from app.api.auth.authenticator import Authenticator
from app.api.auth.principal import Principal
from app.api.http.deadline import extend_deadline
from app.api.routes.streams import StatsStreams
from app.api.telemetry.prometheus import Exposition
from app.catalog.catalog import Catalog
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.advisor.observer import Observer
from app.control.advisor.recommendation_applier import RecommendationApplier
from app.control.audit.outbox import AuditOutbox
from app.control.background.supervisor import Supervisor
from app.control.monitoring.health_checks import HealthChecks
from app.control.monitoring.lock_guard import LockGuard
from app.control.monitoring.poller import Poller
from app.control.monitoring.retention import SampleRetention
from app.control.monitoring.snapshot import Snapshots
from app.control.pools.changes import PoolChanges
from app.control.pools.desired_state import DesiredPoolState
from app.control.pools.operations import PoolOperations
from app.control.reconciler import Reconciler
from app.control.tenants.declaration import TenantDeclarations
from app.control.tenants.deletion import TenantDeletions
from app.control.tenants.provisioning import TenantProvisioning
from app.control.tenants.rotation import PasswordRotation
from app.domain.audit import Actor
from app.domain.errors import TenantNotFound
from app.domain.tenant import TENANT_ID_PATTERN, PoolStrategy, TenantId
from app.pools.event_loop_lag import EventLoopLag
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
    declarations: TenantDeclarations
    deletions: TenantDeletions
    provisioning: TenantProvisioning
    rotation: PasswordRotation
    desired_pool_state: DesiredPoolState
    pool_changes: PoolChanges
    pool_operations: PoolOperations
    advisor_loop: AdvisorLoop
    recommendation_applier: RecommendationApplier
    observer: Observer
    loads: ServerLoads
    poller: Poller
    retention: SampleRetention
    health_checks: HealthChecks
    reconciler: Reconciler
    audit_outbox: AuditOutbox
    lock_guards: Mapping[str, LockGuard]
    catalog: Catalog
    supervisor: Supervisor
    lag: EventLoopLag
    snapshots: Snapshots
    exposition: Exposition
    streams: StatsStreams
    limits: Limits


# All of them are coroutines: FastAPI would hand a plain function to a thread.


async def get_service(request: Request) -> Service:
    """The running service."""
    service: Service = request.app.state.service
    return service


async def get_authenticator(request: Request) -> Authenticator:
    """Who lets callers in."""
    door: Authenticator = request.app.state.door
    return door


async def get_principal(request: Request) -> Principal:
    """Who asks."""
    caller: Principal = request.state.caller
    return caller


async def get_actor(caller: Annotated[Principal, Depends(get_principal)]) -> Actor:
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
    caller: Annotated[Principal, Depends(get_principal)],
) -> TenantId:
    """The tenant named in the path, valid, not reserved, and one that exists for the caller.

    Raises:
        InvalidTenantId: it is reserved.
        TenantNotFound: the caller's key is bound to others, whether or not there is this one.
    """
    found = TenantId(tenant)
    if not caller.can_access(found):
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
    extend_deadline(request, deadline_seconds)
    return deadline_seconds


ServiceDep = Annotated[Service, Depends(get_service)]
ActorDep = Annotated[Actor, Depends(get_actor)]
PrincipalDep = Annotated[Principal, Depends(get_principal)]
AuthenticatorDep = Annotated[Authenticator, Depends(get_authenticator)]
TenantDep = Annotated[TenantId, Depends(get_tenant_id)]
LimitQuery = Annotated[int, Query(ge=1, le=500, description="Most items to return.")]
CursorQuery = Annotated[
    str | None,
    Query(max_length=200, description="The `next_cursor` of the page before."),
]
DeadlineDep = Annotated[float, Depends(get_deadline)]
