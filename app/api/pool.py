"""One tenant's pool over HTTP: open or resize it, show it, operate on it, evict it.

A shared pool serves other tenants too, so whatever touches it through one of them needs
`scope=pool`, and every reply tells how many tenants it touched.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.api.body import RequestBody
from app.api.deps import ActorDep, DeadlineQuery, Service, ServiceDep, TenantDep
from app.api.pool_view import PoolView, show_pool_of
from app.api.problems import documented
from app.api.versions import IfMatchHeader, IfNoneMatchHeader, etag, expected_generation
from app.control.keeper import PoolChange
from app.domain.errors import PoolNotFound
from app.domain.pool import MAX_POOL_SIZE, PoolState
from app.domain.tenant import TenantId
from app.pools.eviction import EvictionReason

router = APIRouter(prefix="/v1/tenants/{tenant}/pool", tags=["pools"])


class Scope(StrEnum):
    """Whom a request means."""

    TENANT = "tenant"
    POOL = "pool"


class EvictionMode(StrEnum):
    """What becomes of leases when a pool is evicted."""

    GRACEFUL = "graceful"
    FORCE = "force"


ScopeQuery = Annotated[
    Scope,
    Query(description="`pool`: all tenants of a shared pool are meant, not this one alone."),
]


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


class PoolDrain(BaseModel):
    """A drain that has begun."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pool_id": "acme", "tenants": 1, "state": "draining", "deadline_seconds": 5.0}
            ]
        }
    )

    pool_id: str
    tenants: int = Field(description="How many tenants this touches.")
    state: PoolState
    deadline_seconds: float


class PoolRecycling(BaseModel):
    """How many connections will be replaced."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pool_id": "acme", "tenants": 1, "connections": 3}]}
    )

    pool_id: str
    tenants: int = Field(description="How many tenants this touches.")
    connections: int = Field(description="Idle ones at once, lent ones when they come back.")


class PoolCheck(BaseModel):
    """What testing idle connections found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"pool_id": "acme", "tenants": 1, "tested": 2, "failed": 0}]
        }
    )

    pool_id: str
    tenants: int = Field(description="How many tenants this touches.")
    tested: int
    failed: int = Field(description="Those did not answer and were closed.")


class PoolEviction(BaseModel):
    """What evicting a pool did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pool_id": "acme", "tenants": 1, "reason": "forced", "closed": 3, "cut": 0}
            ]
        }
    )

    pool_id: str
    tenants: int = Field(description="How many tenants this touches.")
    reason: EvictionReason
    closed: int = Field(description="Connections closed.")
    cut: int = Field(description="Leases cut because they outlasted the deadline.")


@router.put(
    "",
    summary="Open or resize a tenant's pool",
    responses={
        201: {"model": PoolView, "description": "Created"},
        **documented(400, 404, 409, 412, 413, 415),
    },
)
async def put_tenant_pool(
    tenant: TenantDep,
    service: ServiceDep,
    *,
    actor: ActorDep,
    response: Response,
    body: Annotated[PoolBody | None, Body()] = None,
    scope: ScopeQuery = Scope.TENANT,
    if_match: IfMatchHeader = None,
    if_none_match: IfNoneMatchHeader = None,
) -> PoolView:
    """Open the tenant's pool with this size, or resize it live, and wait a few seconds until warm.

    The first time answers 201, every other time 200. A smaller `max_size` fails no borrower:
    surplus connections are closed when they come back. While the server is away the wish is
    kept, and the pool fills up when the server is back.
    """
    account = service.manager.account(tenant)
    exists = _exists(service, account.tenant.spec.pool_id)
    outcome = await service.keeper.put_pool(
        tenant,
        PoolChange(**body.model_dump()) if body else PoolChange(),
        actor,
        whole_pool=scope is Scope.POOL,
        expected_generation=expected_generation(if_match, if_none_match, exists=exists),
    )
    response.status_code = status.HTTP_201_CREATED if outcome.created else status.HTTP_200_OK
    response.headers["ETag"] = etag(outcome.desired.generation)
    return show_pool_of(service, account)


@router.get("", summary="Show a tenant's pool", responses=documented(404))
async def get_tenant_pool(tenant: TenantDep, service: ServiceDep, response: Response) -> PoolView:
    """The pool that serves the tenant: 404 when it is not open and nobody asked anything of it."""
    view = show_pool_of(service, service.manager.account(tenant))
    if not _exists(service, view.pool_id):
        raise PoolNotFound(f"Tenant {tenant} has no pool yet; the first use opens one.")
    response.headers["ETag"] = etag(view.generation)
    return view


@router.post("/pause", summary="Pause a tenant's pool", responses=documented(404, 409))
async def pause_pool(
    tenant: TenantDep, service: ServiceDep, actor: ActorDep, scope: ScopeQuery = Scope.TENANT
) -> PoolView:
    """Lend nothing until resumed: callers wait, connections close when they come back.

    Works while the catalog is away.
    """
    whole_pool = scope is Scope.POOL
    await service.keeper.pause(tenant, actor, paused=True, whole_pool=whole_pool)
    return show_pool_of(service, service.manager.account(tenant))


@router.post("/resume", summary="Resume a tenant's pool", responses=documented(404, 409))
async def resume_pool(
    tenant: TenantDep, service: ServiceDep, actor: ActorDep, scope: ScopeQuery = Scope.TENANT
) -> PoolView:
    """Lend again. Works while the catalog is away."""
    whole_pool = scope is Scope.POOL
    await service.keeper.pause(tenant, actor, paused=False, whole_pool=whole_pool)
    return show_pool_of(service, service.manager.account(tenant))


@router.post(
    "/drain",
    summary="Drain a tenant's pool",
    status_code=status.HTTP_202_ACCEPTED,
    responses=documented(404, 409),
)
async def drain_pool(
    tenant: TenantDep,
    service: ServiceDep,
    actor: ActorDep,
    scope: ScopeQuery = Scope.TENANT,
    deadline_seconds: DeadlineQuery = 5.0,
) -> PoolDrain:
    """Begin to close the pool and answer at once: it takes no new lease from now on.

    When it is closed, the next use opens a fresh one.
    """
    whole_pool = scope is Scope.POOL
    pool = await service.operations.drain(
        tenant, actor, deadline=deadline_seconds, whole_pool=whole_pool
    )
    return PoolDrain(
        pool_id=pool.pool_id,
        tenants=service.manager.tenants_of(pool.pool_id),
        state=pool.state,
        deadline_seconds=deadline_seconds,
    )


@router.post("/recycle", summary="Replace a pool's connections", responses=documented(404, 409))
async def recycle_pool(
    tenant: TenantDep, service: ServiceDep, actor: ActorDep, scope: ScopeQuery = Scope.TENANT
) -> PoolRecycling:
    """Replace every connection without failing a borrower."""
    whole_pool = scope is Scope.POOL
    count = await service.operations.recycle(tenant, actor, whole_pool=whole_pool)
    pool_id, tenants = _pool_of(service, tenant)
    return PoolRecycling(pool_id=pool_id, tenants=tenants, connections=count)


@router.post("/check", summary="Test a pool's connections", responses=documented(404, 409))
async def check_pool(
    tenant: TenantDep, service: ServiceDep, actor: ActorDep, scope: ScopeQuery = Scope.TENANT
) -> PoolCheck:
    """Test every idle connection now; those that do not answer are closed."""
    whole_pool = scope is Scope.POOL
    report = await service.operations.check(tenant, actor, whole_pool=whole_pool)
    pool_id, tenants = _pool_of(service, tenant)
    return PoolCheck(pool_id=pool_id, tenants=tenants, tested=report.tested, failed=report.failed)


@router.delete("", summary="Evict a tenant's pool", responses=documented(404, 409))
async def evict_pool(
    tenant: TenantDep,
    service: ServiceDep,
    *,
    actor: ActorDep,
    mode: Annotated[
        EvictionMode, Query(description="`force` cuts every lease at once, without a deadline.")
    ] = EvictionMode.GRACEFUL,
    deadline_seconds: DeadlineQuery = 5.0,
    scope: ScopeQuery = Scope.TENANT,
) -> PoolEviction:
    """Close the pool now, and tell what was closed and what was cut.

    Its `min_size` becomes 0, lest it open again by itself; the next use opens a fresh one.
    Works while the catalog is away.
    """
    eviction = await service.operations.evict(
        tenant,
        actor,
        deadline=0.0 if mode is EvictionMode.FORCE else deadline_seconds,
        whole_pool=scope is Scope.POOL,
    )
    return PoolEviction(
        pool_id=eviction.pool_id,
        tenants=service.manager.tenants_of(eviction.pool_id),
        reason=eviction.reason,
        closed=eviction.closed,
        cut=eviction.cut,
    )


def _exists(service: Service, pool_id: str) -> bool:
    """Whether there is something to show or to match: it is open, or somebody asked for it."""
    return pool_id in service.manager.desired or service.manager.find(pool_id) is not None


def _pool_of(service: Service, tenant: TenantId) -> tuple[str, int]:
    pool_id = service.manager.account(tenant).tenant.spec.pool_id
    return pool_id, service.manager.tenants_of(pool_id)
