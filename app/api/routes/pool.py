"""One tenant's pool: open or resize it, show it, operate on it, evict it.

A shared pool serves other tenants too. Changing it through one of them needs `scope=pool` and a key
that is not bound to tenants; each response says how many tenants were affected.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import APIRouter, Body, Depends, Query, Request, Response, status
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_OPERATE, REQUIRE_READ, require_unbound_key
from app.api.http.dependencies import (
    DeadlineDep,
    FeedDep,
    ManagerDep,
    PrincipalDep,
    TenantDep,
    provided,
)
from app.api.http.error_responses import problem_responses
from app.api.http.etags import PreconditionsDep, etag, instance_of
from app.api.http.field_types import RequestBody, examples
from app.api.http.strict_route import StrictRoute
from app.api.views.plan import OperationDep, OperationRequest, PlanView
from app.api.views.pool import (
    NodeRecycling,
    PoolCheck,
    PoolDrain,
    PoolEviction,
    PoolRecycling,
    PoolView,
    PoolViews,
)
from app.control.operation import Operation
from app.control.pools.operations import PoolOperations, PoolOutcome
from app.control.pools.pool_changes import PoolChanges
from app.domain.audit import Actor
from app.domain.desired_pool import PoolChange
from app.domain.errors import PoolNotFound
from app.domain.pool import MAX_POOL_SIZE
from app.domain.tenant import TenantId
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

router = APIRouter(prefix="/v1/tenants/{tenant}/pool", tags=["pools"], route_class=StrictRoute)

R = TypeVar("R")
V = TypeVar("V")

ChangesDep = Annotated[PoolChanges, provided(PoolChanges)]
OperationsDep = Annotated[PoolOperations, provided(PoolOperations)]
ViewsDep = Annotated[PoolViews, provided(PoolViews)]


class PoolScope(StrEnum):
    """Which tenants a request concerns."""

    TENANT = "tenant"
    POOL = "pool"


class EvictionMode(StrEnum):
    """What happens to leases when a pool is evicted."""

    GRACEFUL = "graceful"
    FORCE = "force"


class OnPool(Protocol[R]):
    """An operation on a pool."""

    def __call__(
        self, *, state: TenantState, actor: Actor, whole_pool: bool
    ) -> Operation[Any, R]: ...


@dataclass(frozen=True, kw_only=True)
class PoolRequest:
    """A request for an operation on the pool of one tenant.

    Attributes:
        whole_pool: whether it concerns all tenants of a shared pool.
    """

    manager: TenantPoolManager
    views: PoolViews
    tenant: TenantId
    principal: Principal
    whole_pool: bool
    operation: OperationRequest

    @cached_property
    def state(self) -> TenantState:
        """The tenant when it was asked for; the key was checked for its pool.

        Raises:
            TenantNotFound
        """
        return self.manager.tenants.state(self.tenant)

    @property
    def pool(self) -> dict[str, Any]:
        """The fields of a response that identify the pool."""
        pool_id = self.state.tenant.spec.pool_id
        return {"pool_id": pool_id, "tenants": self.manager.tenants.count(pool_id)}

    def show(self, outcome: PoolOutcome) -> PoolView:
        return self.views.show(outcome.state, self.principal, pool=outcome.pool)

    async def run(
        self,
        operation: OnPool[R],
        show: Callable[[R], V],
        *,
        then: Callable[[], Awaitable[object]] | None = None,
    ) -> V | PlanView:
        """Run an *operation* on the pool; see `OperationRequest.run`."""
        actor, whole_pool = self.operation.actor, self.whole_pool
        made = operation(state=self.state, actor=actor, whole_pool=whole_pool)
        return await self.operation.run(made, show, then=then)


async def get_pool_request(
    request: Request,
    *,
    manager: ManagerDep,
    views: ViewsDep,
    tenant: TenantDep,
    principal: PrincipalDep,
    operation: OperationDep,
    scope: Annotated[
        PoolScope,
        Query(description="`pool`: the request concerns all tenants of a shared pool."),
    ] = PoolScope.TENANT,
) -> PoolRequest:
    """Collect the input of an operation on a pool.

    Raises:
        KeyBoundToTenants: the key is bound to tenants, but a shared pool has others.
    """
    pool_request = PoolRequest(
        manager=manager,
        views=views,
        tenant=tenant,
        principal=principal,
        whole_pool=scope is PoolScope.POOL,
        operation=operation,
    )
    if pool_request.whole_pool and pool_request.state.tenant.spec.is_shared:
        await require_unbound_key(request)
    return pool_request


PoolRequestDep = Annotated[PoolRequest, Depends(get_pool_request)]


class PoolBody(RequestBody):
    """A change of a pool's size; omitted or null fields stay as they are."""

    model_config = examples({"max_size": 10}, {"min_size": 2, "max_size": 8}, {})

    max_size: int | None = Field(
        default=None, ge=1, le=MAX_POOL_SIZE, description="Maximum number of connections."
    )
    min_size: int | None = Field(
        default=None,
        ge=0,
        le=MAX_POOL_SIZE,
        description="Connections that stay open when idle. The pool is then never evicted as idle.",
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
    dependencies=[REQUIRE_OPERATE],
    summary="Open or resize a tenant's pool",
    responses={
        201: {"model": PoolView, "description": "Created"},
        **problem_responses(409),
    },
)
async def put_tenant_pool(
    request: PoolRequestDep,
    *,
    operations: OperationsDep,
    preconditions: PreconditionsDep,
    response: Response,
    body: Annotated[PoolBody | None, Body()] = None,
) -> PoolView | PlanView:
    """Opens the pool with this size, or resizes it live; waits a few seconds until it is warm.

    The first request answers 201, later ones 200. A smaller `max_size` interrupts no lease:
    surplus connections are closed when they are returned. While the server is unreachable, the
    desired size is stored and the pool fills up when the server is back.
    """

    def show(outcome: PoolOutcome) -> PoolView:
        response.status_code = status.HTTP_201_CREATED if outcome.created else status.HTTP_200_OK
        response.headers["ETag"] = etag(outcome.desired.generation, _instance(outcome.state))
        return request.show(outcome)

    def expect(generation: int | None) -> int | None:
        present = request.manager.tenants.state(request.tenant)
        return preconditions.expected_generation(generation, _instance(present))

    change = PoolChange(**body.model_dump()) if body else PoolChange()
    put = partial(operations.put, change=change, expect=expect)
    return await request.run(put, show)


@router.get("", dependencies=[REQUIRE_READ], summary="Get a tenant's pool")
async def get_tenant_pool(
    tenant: TenantDep,
    *,
    manager: ManagerDep,
    changes: ChangesDep,
    views: ViewsDep,
    principal: PrincipalDep,
    response: Response,
) -> PoolView:
    """Shows the pool that serves the tenant, and what it has on nodes.

    404 while it is not open, was never changed, and is on no node. Without an ETag, it is only on
    nodes.
    """
    state = manager.tenants.state(tenant)
    generation = changes.generation(state)
    if generation is not None:
        response.headers["ETag"] = etag(generation, _instance(state))
    elif not views.on_nodes(state):
        raise PoolNotFound(f"Tenant {tenant} has no open pool; its next use opens one.")
    return views.show(state, principal)


@router.post("/pause", dependencies=[REQUIRE_OPERATE], summary="Pause a tenant's pool")
async def pause_pool(
    request: PoolRequestDep, operations: OperationsDep, feed: FeedDep
) -> PoolView | PlanView:
    """Hands out no connection until resumed; returned connections are closed.

    Callers wait, or are refused at once if the setting `callers_of_paused_pools` is `refuse`;
    failures have the code `pool-paused`. A paused pool stays in all lists, open or not, with who
    paused it and since when. Works while the catalog is unreachable, and before the tenant is
    provisioned: it then serves nobody until it is resumed. The response waits, for 2 s at most,
    until nodes no longer begin transactions of the tenant.
    """
    pause = partial(operations.pause, paused=True)
    paused = partial(feed.wait_paused, request.state.tenant.spec)
    return await request.run(pause, request.show, then=paused)


@router.post("/resume", dependencies=[REQUIRE_OPERATE], summary="Resume a tenant's pool")
async def resume_pool(
    request: PoolRequestDep, operations: OperationsDep, feed: FeedDep
) -> PoolView | PlanView:
    """Hands out connections again. Works while the catalog is unreachable."""
    resume = partial(operations.pause, paused=False)
    return await request.run(resume, request.show, then=feed.refresh)


@router.post(
    "/drain",
    dependencies=[REQUIRE_OPERATE],
    summary="Drain a tenant's pool",
    status_code=status.HTTP_202_ACCEPTED,
    responses={200: {"model": PlanView, "description": "The plan of a dry run."}},
)
async def drain_pool(
    request: PoolRequestDep, operations: OperationsDep, deadline_seconds: DeadlineDep
) -> PoolDrain | PlanView:
    """Starts to close the pool and responds at once. It accepts no new lease from now on.

    Once it is closed, the next use opens a new one; a `min_size` does not open it before that.
    Nodes replace the tenant's connections, as when it is recycled.
    """
    return await request.run(
        partial(operations.drain, deadline=deadline_seconds),
        lambda state: PoolDrain(**request.pool, state=state, deadline_seconds=deadline_seconds),
    )


@router.post("/recycle", dependencies=[REQUIRE_OPERATE], summary="Replace a pool's connections")
async def recycle_pool(
    request: PoolRequestDep, operations: OperationsDep
) -> PoolRecycling | PlanView:
    """Replaces every connection without interrupting a lease or, on nodes, a transaction.

    The response waits, for 3 s at most, until nodes have begun; one that cannot be reached does it
    when it is back. Works while the catalog is unreachable.
    """
    return await request.run(
        operations.recycle,
        lambda report: PoolRecycling(
            **request.pool,
            connections=report.connections,
            nodes=NodeRecycling.of(report.nodes),
        ),
    )


@router.post("/check", dependencies=[REQUIRE_OPERATE], summary="Test a pool's connections")
async def check_pool(request: PoolRequestDep, operations: OperationsDep) -> PoolCheck | PlanView:
    """Tests every idle connection now, and closes those that do not respond.

    Only those of this service's own pool: PgBouncer tests a node's connections before use.
    """
    return await request.run(
        operations.check,
        lambda report: PoolCheck(**request.pool, tested=report.tested, failed=report.failed),
    )


@router.delete("", dependencies=[REQUIRE_OPERATE], summary="Evict a tenant's pool")
async def evict_pool(
    request: PoolRequestDep,
    operations: OperationsDep,
    changes: ChangesDep,
    preconditions: PreconditionsDep,
    deadline_seconds: DeadlineDep,
    *,
    mode: Annotated[
        EvictionMode, Query(description="`force` cuts all leases at once, without a deadline.")
    ] = EvictionMode.GRACEFUL,
) -> PoolEviction | PlanView:
    """Closes the pool now, and reports what was closed and cut.

    It keeps its desired size. Its next use opens a new one; a `min_size` does not open it before
    that. Nodes close the tenant's connections as when it is recycled: they cut no transaction.
    Works while the catalog is unreachable.
    """
    generation = changes.generation(request.state)
    if generation is None and request.manager.desired.is_on_nodes(request.state.tenant):
        generation = 0
    preconditions.expected_generation(generation, _instance(request.state))
    deadline = 0.0 if mode is EvictionMode.FORCE else deadline_seconds
    return await request.run(
        partial(operations.evict, deadline=deadline),
        lambda report: PoolEviction(
            **request.pool,
            reason=report.eviction.reason,
            closed=report.eviction.closed,
            cut=report.eviction.cut,
            nodes=NodeRecycling.of(report.nodes),
        ),
    )


def _instance(state: TenantState) -> str:
    """The pool's own: that of its tenant; a shared pool outlives each tenant."""
    tenant = state.tenant
    return "" if tenant.spec.is_shared else instance_of(tenant.uid)
