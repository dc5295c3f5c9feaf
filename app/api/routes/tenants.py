"""Tenants: declare, show, list, provision, delete."""

from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_ADMIN, REQUIRE_READ
from app.api.http.dependencies import (
    CursorQuery,
    DeadlineDep,
    FeedDep,
    LimitQuery,
    ManagerDep,
    PrincipalDep,
    ServerQuery,
    StrategyQuery,
    TenantDefaults,
    TenantDep,
    provided,
)
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.etags import Preconditions, PreconditionsDep, etag, instance_of
from app.api.http.field_types import Labels, Name, RequestBody, examples
from app.api.http.paging import Matches, NextCursor, SearchQuery, page_of_names
from app.api.http.strict_route import StrictRoute
from app.api.views.plan import OperationDep, PlanView
from app.api.views.tenant import TenantPhase, TenantView, TenantViews, phase_of
from app.control.tenants.declaration import TenantDeclarations
from app.control.tenants.deletion import TenantDeletions
from app.control.tenants.provisioning import TenantProvisioning
from app.control.time_slices import in_slices
from app.domain.isolation_checks import Severity
from app.domain.tenant import AdvisorMode, PoolStrategy, Tenant, TenantId, TenantSpec
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=StrictRoute)

# A deletion waits for nodes no longer: by then they let nobody in, whatever they still have to
# read.
_NODES_SECONDS = 1.0

ViewsDep = Annotated[TenantViews, provided(TenantViews)]
_MAX_LABEL_LENGTH = 63 + 1 + 256


class TenantBody(RequestBody):
    """A tenant's declaration."""

    model_config = examples(
        {"strategy": "per_tenant", "labels": {"plan": "gold"}},
        {"server": "local", "strategy": "shared", "weight": 2, "max_leases": 10},
    )

    server: Name | None = Field(
        default=None,
        description="A declared server; the default one if omitted. Immutable.",
    )
    strategy: PoolStrategy | None = Field(
        default=None,
        strict=False,
        description="How it is isolated; the service's default if omitted. Immutable.",
    )
    weight: int = Field(
        default=1, ge=1, le=1000, description="Its share when connections run short."
    )
    max_leases: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Maximum number of leases at a time, connections on nodes included; null: no "
        "limit.",
    )
    labels: Labels = Field(
        default={}, description="Labels for people and filters; no control characters."
    )
    advisor_mode: AdvisorMode | None = Field(
        default=None,
        strict=False,
        description="How recommendations for its own pool are handled; null: as for the service. "
        "A shared pool follows the service.",
    )


class TenantList(BaseModel):
    """A page of tenants."""

    matches: Matches
    items: list[TenantView]
    next_cursor: NextCursor


class TenantDeletion(BaseModel):
    """The result of deleting a tenant."""

    tenant: str = Field(examples=["acme"])
    closed: int = Field(
        description="Connections closed; those of nodes do not count.", examples=[2]
    )
    cut: int = Field(description="Leases that were cut at the deadline.", examples=[0])
    login_disabled: bool = Field(
        description="False while its server is unreachable; disabled as soon as it is back."
    )


class Provisioning(BaseModel):
    """A tenant's objects in Postgres."""

    tenant: str = Field(examples=["acme"])
    objects: list[str] = Field(examples=[["role tenant_acme", "schema tenant_acme"]])
    provisioned_at: datetime | None = Field(examples=["2026-11-20T09:00:02Z"])


@router.put(
    "/{tenant}",
    dependencies=[REQUIRE_ADMIN],
    summary="Declare a tenant",
    responses={
        201: {"model": TenantView, "description": "Created"},
        **problem_responses(409),
    },
)
async def put_tenant(
    tenant: TenantDep,
    body: TenantBody,
    *,
    manager: ManagerDep,
    defaults: Annotated[TenantDefaults, provided(TenantDefaults)],
    declarations: Annotated[TenantDeclarations, provided(TenantDeclarations)],
    views: ViewsDep,
    principal: PrincipalDep,
    operation: OperationDep,
    response: Response,
    preconditions: PreconditionsDep,
) -> TenantView | PlanView:
    """Creates the tenant, or replaces its declaration.

    The first request answers 201, later ones 200. Repeating a declaration changes nothing and
    keeps the ETag. In an update, an omitted server or strategy stays as it is (neither can
    change), and every other omitted field gets its default.
    """

    def show(declared: tuple[Tenant, bool]) -> TenantView:
        saved, created = declared
        response.status_code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
        response.headers["ETag"] = tenant_etag(saved)
        return views.show(manager.tenants.state(tenant), principal)

    declare = partial(_declared, manager, defaults, tenant, body)
    expect = partial(_expected, preconditions)
    declaration = declarations.put(tenant, declare, operation.actor, expect=expect)
    return await operation.run(declaration, show)


@router.get("", dependencies=[REQUIRE_READ], summary="List tenants")
async def list_tenants(
    manager: ManagerDep,
    views: ViewsDep,
    principal: PrincipalDep,
    *,
    strategy: StrategyQuery = None,
    server: ServerQuery = None,
    state: Annotated[TenantPhase | None, Query(description="Filter by state.")] = None,
    search: SearchQuery = "",
    finding: Annotated[
        Severity | None,
        Query(description="Filter by isolation: tenants with a finding of this severity."),
    ] = None,
    label: Annotated[
        list[Annotated[str, Query(max_length=_MAX_LABEL_LENGTH, pattern=":")]],
        Query(
            max_length=8,
            description="Filter by label, `key:value`; all must match.",
            examples=[["plan:gold"]],
        ),
    ] = [],  # noqa: B006 - FastAPI's way to say none
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> TenantList:
    """Lists tenants by ID: those that the key can access and that match every filter.

    Works while the catalog is unreachable.
    """
    part = search.strip().lower()
    labels = {(key, value) for key, _, value in (text.partition(":") for text in label)}

    def matches(found: TenantState) -> bool:
        spec = found.tenant.spec
        findings = found.isolation.findings if found.isolation else ()
        return (
            principal.can_access(spec.id)
            and (strategy is None or spec.strategy is strategy)
            and (server is None or spec.server == server)
            and (state is None or phase_of(found.tenant) is state)
            and part in spec.id
            and labels <= spec.labels.items()
            and (finding is None or any(each.severity is finding for each in findings))
        )

    # Some of them may be deleted between two slices.
    states = dict(manager.tenants)
    ids = [id_ async for id_, found in in_slices(states.items()) if matches(found)]
    page, next_cursor = page_of_names(ids, cursor, limit)
    shown = in_slices(states[id_] for id_ in page)
    items = [views.show(each, principal) async for each in shown]
    return TenantList(matches=len(ids), items=items, next_cursor=next_cursor)


@router.get("/{tenant}", dependencies=[REQUIRE_READ], summary="Get a tenant")
async def get_tenant(
    tenant: TenantDep,
    manager: ManagerDep,
    views: ViewsDep,
    principal: PrincipalDep,
    response: Response,
) -> TenantView:
    """Shows a tenant. Works while the catalog is unreachable."""
    state = manager.tenants.state(tenant)
    response.headers["ETag"] = tenant_etag(state.tenant)
    return views.show(state, principal)


@router.delete("/{tenant}", dependencies=[REQUIRE_ADMIN], summary="Delete a tenant")
async def delete_tenant(
    tenant: TenantDep,
    manager: ManagerDep,
    deletions: Annotated[TenantDeletions, provided(TenantDeletions)],
    feed: FeedDep,
    operation: OperationDep,
    *,
    deadline_seconds: DeadlineDep,
    preconditions: PreconditionsDep,
) -> TenantDeletion | PlanView:
    """Closes the tenant's pool, disables its login, and deletes its record. Its data stays.

    Active leases are cut at the deadline. The response waits until the nodes that serve the tenant
    have cut its clients and refuse new ones, for 1 s at most.
    """
    state = manager.tenants.state(tenant)
    before = state.tenant
    expect = partial(_expected, preconditions)
    deletion = deletions.delete(state, operation.actor, deadline=deadline_seconds, expect=expect)
    return await operation.run(
        deletion,
        lambda done: TenantDeletion(
            tenant=tenant,
            closed=done.eviction.closed if done.eviction else 0,
            cut=done.eviction.cut if done.eviction else 0,
            login_disabled=done.login_disabled,
        ),
        then=lambda: feed.settle(before.spec, seconds=_NODES_SECONDS),
    )


@router.post("/{tenant}/provision", dependencies=[REQUIRE_ADMIN], summary="Provision a tenant")
async def provision_tenant(
    tenant: TenantDep,
    manager: ManagerDep,
    provisioning: Annotated[TenantProvisioning, provided(TenantProvisioning)],
    operation: OperationDep,
    *,
    adopt: Annotated[bool, Query(description="Take over existing objects of that name.")] = False,
) -> Provisioning | PlanView:
    """Creates what the tenant's strategy needs: role, schema or database, and grants.

    Idempotent. If an object of that name exists and Poolkeeper did not create it for this tenant,
    the response is 409 `objects-exist`; `adopt=true` takes it over. Finally, it tests the login of
    the tenant's role.
    """

    def show(provisioned: tuple[Tenant, list[str]]) -> Provisioning:
        saved, objects = provisioned
        return Provisioning(tenant=tenant, objects=objects, provisioned_at=saved.provisioned_at)

    state = manager.tenants.state(tenant)
    return await operation.run(provisioning.provision(state, operation.actor, adopt=adopt), show)


def tenant_etag(tenant: Tenant) -> str:
    """The ETag of *tenant*'s stored fields: its declaration's generation, and its state.

    A later tenant of the same name starts at generation 1 again, but has another uid.
    """
    phase = phase_of(tenant)
    state = "" if phase is TenantPhase.DECLARED else phase.value
    return etag(tenant.generation, instance_of(tenant.uid), state)


def _expected(preconditions: Preconditions, tenant: Tenant | None) -> int | None:
    if tenant is None:
        return preconditions.expected_generation(None)
    return preconditions.expected_generation(tenant.generation, instance_of(tenant.uid))


def _declared(
    manager: TenantPoolManager,
    defaults: TenantDefaults,
    tenant: TenantId,
    body: TenantBody,
    before: Tenant | None,
) -> TenantSpec:
    server = body.server or (before.spec.server if before else defaults.server)
    if server is None:
        raise validation_error(
            "body", "server", code="missing", detail="There is no default server: name one."
        )
    if server not in manager.servers:
        raise validation_error(
            "body",
            "server",
            code="server_not_declared",
            detail=f"No server {server} is declared.",
        )
    strategy = body.strategy or (before.spec.strategy if before else defaults.strategy)
    return TenantSpec(
        id=tenant,
        server=server,
        strategy=strategy,
        **body.model_dump(exclude={"server", "strategy"}),
    )
