"""One tenant's pool over HTTP: open or resize it, show it, operate on it, evict it.

A shared pool serves other tenants too, so whatever touches it through one of them needs
`scope=pool` and a key that is bound to no tenants, and every reply tells how many it touched.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Request, Response, status
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.api.auth.authenticator import REQUIRE_OPERATE, REQUIRE_READ, require_unbound_key
from app.api.http.dependencies import (
    ActorDep,
    DeadlineDep,
    PrincipalDep,
    Service,
    ServiceDep,
    TenantDep,
)
from app.api.http.error_responses import problem_responses
from app.api.http.etags import PreconditionsDep, etag
from app.api.http.field_types import RequestBody
from app.api.http.strict_route import StrictRoute
from app.api.views.plan import DryRunQuery, PlanView, show_plan
from app.api.views.pool import PoolView, show_pool_of
from app.api.views.pool_operations import PoolCheck, PoolDrain, PoolEviction, PoolRecycling
from app.control.keeper import PoolChange
from app.domain.errors import PoolNotFound
from app.domain.pool import MAX_POOL_SIZE
from app.domain.tenant import TenantId

router = APIRouter(prefix="/v1/tenants/{tenant}/pool", tags=["pools"], route_class=StrictRoute)


class PoolScope(StrEnum):
    """Whom a request means."""

    TENANT = "tenant"
    POOL = "pool"


class EvictionMode(StrEnum):
    """What becomes of leases when a pool is evicted."""

    GRACEFUL = "graceful"
    FORCE = "force"


ScopeQuery = Annotated[
    PoolScope,
    Query(description="`pool`: all tenants of a shared pool are meant, not this one alone."),
]


async def _spare_others(request: Request, service: ServiceDep, tenant: TenantDep) -> None:
    """A shared pool is more than the tenants that a key is bound to."""
    is_whole = PoolScope.POOL in request.query_params.getlist("scope")
    if is_whole and service.manager.tenant_state(tenant).tenant.spec.is_shared:
        await require_unbound_key(request)


AUTHORIZE_SCOPE = Depends(_spare_others)


class PoolBody(RequestBody):
    """What is wanted of a pool's size; what is omitted, or null, stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"max_size": 10}, {"min_size": 2, "max_size": 8}, {}]}
    )

    max_size: int | None = Field(
        default=None, ge=1, le=MAX_POOL_SIZE, description="Most connections."
    )
    min_size: int | None = Field(
        default=None,
        ge=0,
        le=MAX_POOL_SIZE,
        description="Connections kept open whatever happens; such a pool is never evicted as idle.",
    )
    warmup_size: int | None = Field(
        default=None, ge=0, le=MAX_POOL_SIZE, description="Connections opened when the pool opens."
    )

    @field_validator("min_size", "warmup_size")
    @classmethod
    def _fits(cls, value: int | None, info: ValidationInfo) -> int | None:
        most = info.data.get("max_size")
        if value is not None and most is not None and value > most:
            raise PydanticCustomError("greater_than_max_size", "It must not exceed max_size.")
        return value


@router.put(
    "",
    dependencies=[REQUIRE_OPERATE, AUTHORIZE_SCOPE],
    summary="Open or resize a tenant's pool",
    responses={
        201: {"model": PoolView, "description": "Created"},
        **problem_responses(404, 409, 412, 428),
    },
)
async def put_tenant_pool(
    tenant: TenantDep,
    service: ServiceDep,
    *,
    caller: PrincipalDep,
    actor: ActorDep,
    response: Response,
    preconditions: PreconditionsDep,
    body: Annotated[PoolBody | None, Body()] = None,
    scope: ScopeQuery = PoolScope.TENANT,
    dry_run: DryRunQuery = False,
) -> PoolView | PlanView:
    """Open the tenant's pool with this size, or resize it live, and wait a few seconds until warm.

    The first time answers 201, every other time 200. A smaller `max_size` fails no borrower:
    surplus connections are closed when they come back. While the server is away the wish is
    kept, and the pool fills up when the server is back.
    """
    account = service.manager.tenant_state(tenant)
    expected = preconditions.expected_generation(_generation(service, account.tenant.spec.pool_id))
    change = PoolChange(**body.model_dump()) if body else PoolChange()
    whole_pool = scope is PoolScope.POOL
    if dry_run:
        preview = service.previews.put_pool(tenant, change, whole_pool=whole_pool)
        return show_plan(service, response, preview, needs_catalog=True)
    outcome = await service.keeper.put_pool(
        tenant, change, actor, whole_pool=whole_pool, expected_generation=expected
    )
    response.status_code = status.HTTP_201_CREATED if outcome.created else status.HTTP_200_OK
    response.headers["ETag"] = etag(outcome.desired.generation)
    return show_pool_of(service, account, caller)


@router.get(
    "",
    dependencies=[REQUIRE_READ],
    summary="Show a tenant's pool",
    responses=problem_responses(404),
)
async def get_tenant_pool(
    tenant: TenantDep, service: ServiceDep, caller: PrincipalDep, response: Response
) -> PoolView:
    """The pool that serves the tenant: 404 when it is not open and nobody asked anything of it."""
    view = show_pool_of(service, service.manager.tenant_state(tenant), caller)
    if _generation(service, view.pool_id) is None:
        raise PoolNotFound(f"Tenant {tenant} has no pool yet; the first use opens one.")
    response.headers["ETag"] = etag(view.generation)
    return view


@router.post(
    "/pause",
    dependencies=[REQUIRE_OPERATE, AUTHORIZE_SCOPE],
    summary="Pause a tenant's pool",
    responses=problem_responses(404, 409),
)
async def pause_pool(
    tenant: TenantDep,
    service: ServiceDep,
    *,
    caller: PrincipalDep,
    actor: ActorDep,
    response: Response,
    scope: ScopeQuery = PoolScope.TENANT,
    dry_run: DryRunQuery = False,
) -> PoolView | PlanView:
    """Lend nothing until resumed: callers wait, connections close when they come back.

    Works while the catalog is away.
    """
    whole_pool = scope is PoolScope.POOL
    if dry_run:
        preview = service.previews.pause(tenant, paused=True, whole_pool=whole_pool)
        return show_plan(service, response, preview)
    await service.keeper.pause(tenant, actor, paused=True, whole_pool=whole_pool)
    return show_pool_of(service, service.manager.tenant_state(tenant), caller)


@router.post(
    "/resume",
    dependencies=[REQUIRE_OPERATE, AUTHORIZE_SCOPE],
    summary="Resume a tenant's pool",
    responses=problem_responses(404, 409),
)
async def resume_pool(
    tenant: TenantDep,
    service: ServiceDep,
    *,
    caller: PrincipalDep,
    actor: ActorDep,
    response: Response,
    scope: ScopeQuery = PoolScope.TENANT,
    dry_run: DryRunQuery = False,
) -> PoolView | PlanView:
    """Lend again. Works while the catalog is away."""
    whole_pool = scope is PoolScope.POOL
    if dry_run:
        preview = service.previews.pause(tenant, paused=False, whole_pool=whole_pool)
        return show_plan(service, response, preview)
    await service.keeper.pause(tenant, actor, paused=False, whole_pool=whole_pool)
    return show_pool_of(service, service.manager.tenant_state(tenant), caller)


@router.post(
    "/drain",
    dependencies=[REQUIRE_OPERATE, AUTHORIZE_SCOPE],
    summary="Drain a tenant's pool",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        200: {"model": PlanView, "description": "What it would do."},
        **problem_responses(404, 409),
    },
)
async def drain_pool(
    tenant: TenantDep,
    service: ServiceDep,
    *,
    actor: ActorDep,
    response: Response,
    deadline_seconds: DeadlineDep,
    scope: ScopeQuery = PoolScope.TENANT,
    dry_run: DryRunQuery = False,
) -> PoolDrain | PlanView:
    """Begin to close the pool and answer at once: it takes no new lease from now on.

    When it is closed, the next use opens a fresh one.
    """
    whole_pool = scope is PoolScope.POOL
    if dry_run:
        preview = service.previews.close(
            tenant, deadline=deadline_seconds, whole_pool=whole_pool, forced=False
        )
        return show_plan(service, response, preview)
    pool = await service.pool_operations.drain(
        tenant, actor, deadline=deadline_seconds, whole_pool=whole_pool
    )
    return PoolDrain(
        pool_id=pool.pool_id,
        tenants=service.manager.tenant_count(pool.pool_id),
        state=pool.state,
        deadline_seconds=deadline_seconds,
    )


@router.post(
    "/recycle",
    dependencies=[REQUIRE_OPERATE, AUTHORIZE_SCOPE],
    summary="Replace a pool's connections",
    responses=problem_responses(404, 409),
)
async def recycle_pool(
    tenant: TenantDep,
    service: ServiceDep,
    *,
    actor: ActorDep,
    response: Response,
    scope: ScopeQuery = PoolScope.TENANT,
    dry_run: DryRunQuery = False,
) -> PoolRecycling | PlanView:
    """Replace every connection without failing a borrower."""
    whole_pool = scope is PoolScope.POOL
    if dry_run:
        preview = service.previews.recycle(tenant, whole_pool=whole_pool)
        return show_plan(service, response, preview)
    count = await service.pool_operations.recycle(tenant, actor, whole_pool=whole_pool)
    pool_id, tenants = _pool_of(service, tenant)
    return PoolRecycling(pool_id=pool_id, tenants=tenants, connections=count)


@router.post(
    "/check",
    dependencies=[REQUIRE_OPERATE, AUTHORIZE_SCOPE],
    summary="Test a pool's connections",
    responses=problem_responses(404, 409),
)
async def check_pool(
    tenant: TenantDep,
    service: ServiceDep,
    *,
    actor: ActorDep,
    response: Response,
    scope: ScopeQuery = PoolScope.TENANT,
    dry_run: DryRunQuery = False,
) -> PoolCheck | PlanView:
    """Test every idle connection now; those that do not answer are closed."""
    whole_pool = scope is PoolScope.POOL
    if dry_run:
        preview = service.previews.check(tenant, whole_pool=whole_pool)
        return show_plan(service, response, preview)
    report = await service.pool_operations.check(tenant, actor, whole_pool=whole_pool)
    pool_id, tenants = _pool_of(service, tenant)
    return PoolCheck(pool_id=pool_id, tenants=tenants, tested=report.tested, failed=report.failed)


@router.delete(
    "",
    dependencies=[REQUIRE_OPERATE, AUTHORIZE_SCOPE],
    summary="Evict a tenant's pool",
    responses=problem_responses(404, 409, 412, 428),
)
async def evict_pool(
    tenant: TenantDep,
    service: ServiceDep,
    *,
    actor: ActorDep,
    response: Response,
    deadline_seconds: DeadlineDep,
    preconditions: PreconditionsDep,
    mode: Annotated[
        EvictionMode, Query(description="`force` cuts every lease at once, without a deadline.")
    ] = EvictionMode.GRACEFUL,
    scope: ScopeQuery = PoolScope.TENANT,
    dry_run: DryRunQuery = False,
) -> PoolEviction | PlanView:
    """Close the pool now, and tell what was closed and what was cut.

    Its `min_size` becomes 0, lest it open again by itself; the next use opens a fresh one.
    Works while the catalog is away.
    """
    deadline = 0.0 if mode is EvictionMode.FORCE else deadline_seconds
    whole_pool = scope is PoolScope.POOL
    pool_id, _ = _pool_of(service, tenant)
    preconditions.expected_generation(_generation(service, pool_id))
    if dry_run:
        preview = service.previews.close(
            tenant, deadline=deadline, whole_pool=whole_pool, forced=True
        )
        return show_plan(service, response, preview)
    eviction = await service.pool_operations.evict(
        tenant, actor, deadline=deadline, whole_pool=whole_pool
    )
    return PoolEviction(
        pool_id=eviction.pool_id,
        tenants=service.manager.tenant_count(eviction.pool_id),
        reason=eviction.reason,
        closed=eviction.closed,
        cut=eviction.cut,
    )


def _generation(service: Service, pool_id: str) -> int | None:
    """The generation there is to show or to match; None: not open, and nobody asked for it."""
    desired = service.manager.desired.get(pool_id)
    if desired is not None:
        return desired.generation
    return None if service.manager.find(pool_id) is None else 0


def _pool_of(service: Service, tenant: TenantId) -> tuple[str, int]:
    pool_id = service.manager.tenant_state(tenant).tenant.spec.pool_id
    return pool_id, service.manager.tenant_count(pool_id)
