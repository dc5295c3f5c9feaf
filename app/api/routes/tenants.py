"""Tenants over HTTP: declare, show, list, provision, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth.authenticator import REQUIRE_ADMIN, REQUIRE_READ
from app.api.http.dependencies import (
    CursorQuery,
    DeadlineDep,
    LimitQuery,
    PrincipalDep,
    Service,
    ServiceDep,
    TenantDep,
)
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.etags import PreconditionsDep, etag
from app.api.http.field_types import PrintableText, RequestBody
from app.api.http.paging import decode_cursor, paginate
from app.api.http.strict_route import StrictRoute
from app.api.views.plan import OperationDep, PlanView
from app.api.views.tenant import TENANT_EXAMPLE, TenantPhase, TenantView, show_tenant, state_of
from app.domain.advisor_mode import AdvisorMode
from app.domain.desired_state import Tenant
from app.domain.tenant import TENANT_ID_PATTERN, PoolStrategy, TenantId, TenantSpec

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=StrictRoute)

_ServerName = Annotated[str, Field(pattern=TENANT_ID_PATTERN, max_length=48)]
_LabelKey = Annotated[PrintableText, Field(min_length=1, max_length=63, pattern=r"^[^:]+$")]
_LabelValue = Annotated[PrintableText, Field(max_length=256)]
_LONGEST_LABEL = 63 + 1 + 256


class TenantBody(RequestBody):
    """A tenant's declaration."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"strategy": "per_tenant", "labels": {"plan": "gold"}},
                {"server": "local", "strategy": "shared", "weight": 2, "max_leases": 10},
            ]
        }
    )

    server: _ServerName | None = Field(
        default=None,
        description="A declared server; the default server if omitted. Immutable.",
    )
    strategy: PoolStrategy | None = Field(
        default=None,
        strict=False,
        description="How it is isolated; the default strategy if omitted. Immutable.",
    )
    weight: int = Field(
        default=1, ge=1, le=1000, description="Its share when connections run short."
    )
    max_leases: int | None = Field(
        default=None, ge=1, le=10_000, description="Most leases it may hold at once; null: no cap."
    )
    labels: dict[_LabelKey, _LabelValue] = Field(
        default={},
        max_length=32,
        description="Free text for people and filters; no control characters.",
    )
    advisor_mode: AdvisorMode | None = Field(
        default=None,
        strict=False,
        description="How recommendations for its own pool are handled; null: as for the whole "
        "service. A shared pool follows the service.",
    )


class TenantList(BaseModel):
    """One page of tenants."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [TENANT_EXAMPLE], "next_cursor": None}]}
    )

    items: list[TenantView]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class TenantDeletion(BaseModel):
    """What deleting a tenant did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"tenant": "acme", "closed": 2, "cut": 0, "login_disabled": True}]
        }
    )

    tenant: str
    closed: int = Field(description="Connections closed.")
    cut: int = Field(description="Leases cut because they outlasted the deadline.")
    login_disabled: bool = Field(
        description="False while its server is unreachable; it is disabled when the server is back."
    )


class Provisioning(BaseModel):
    """The database objects of a tenant."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tenant": "acme",
                    "objects": ["role tenant_acme", "schema tenant_acme"],
                    "provisioned_at": "2026-11-20T09:00:02Z",
                }
            ]
        }
    )

    tenant: str
    objects: list[str]
    provisioned_at: datetime | None


@router.put(
    "/{tenant}",
    dependencies=[REQUIRE_ADMIN],
    summary="Declare a tenant",
    responses={
        201: {"model": TenantView, "description": "Created"},
        **problem_responses(404, 409, 412, 428),
    },
)
async def put_tenant(
    tenant: TenantDep,
    body: TenantBody,
    *,
    service: ServiceDep,
    principal: PrincipalDep,
    operation: OperationDep,
    response: Response,
    preconditions: PreconditionsDep,
) -> TenantView | PlanView:
    """Create the tenant, or replace its declaration.

    Creating it gets 201, an update 200; an identical declaration changes nothing and keeps the
    ETag. On an update an omitted server or strategy stays as it is (neither can change), and
    every other omitted field gets its default.
    """
    known = service.manager.tenant_states.get(tenant)
    before = known.tenant if known else None
    spec = _declared(service, tenant, body, before)
    expected = preconditions.expected_generation(
        before.generation if before else None, _mark(before) if before else ""
    )

    def show(declared: tuple[Tenant, bool]) -> TenantView:
        saved, created = declared
        response.status_code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
        response.headers["ETag"] = tenant_etag(saved)
        return show_tenant(service, service.manager.tenant_state(tenant), principal)

    declaration = service.declarations.put(spec, operation.actor, expected_generation=expected)
    return await operation.run(declaration, show)


@router.get("", dependencies=[REQUIRE_READ], summary="List tenants", responses=problem_responses())
async def list_tenants(
    service: ServiceDep,
    principal: PrincipalDep,
    *,
    strategy: Annotated[PoolStrategy | None, Query(description="Filter by strategy.")] = None,
    server: Annotated[str | None, Query(max_length=48, description="Filter by server.")] = None,
    state: Annotated[TenantPhase | None, Query(description="Filter by state.")] = None,
    label: Annotated[
        list[Annotated[str, Query(max_length=_LONGEST_LABEL, pattern=":")]],
        Query(
            max_length=8,
            description="Filter by label, `key:value`; several must all match.",
            examples=["plan:gold"],
        ),
    ] = [],  # noqa: B006 - FastAPI's way to say none
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> TenantList:
    """All tenants that the key can access and that match every filter, by id.

    Works while the catalog is unreachable.
    """
    after = decode_cursor(cursor, str)[0] if cursor else ""
    labels = {(key, value) for key, _, value in (text.partition(":") for text in label)}

    def fits(tenant: Tenant) -> bool:
        spec = tenant.spec
        return (
            principal.can_access(spec.id)
            and (strategy is None or spec.strategy is strategy)
            and (server is None or spec.server == server)
            and (state is None or state_of(tenant) is state)
            and labels <= spec.labels.items()
        )

    states = service.manager.tenant_states
    ids = sorted(id_ for id_, each in states.items() if id_ > after and fits(each.tenant))
    page, next_cursor = paginate(ids, limit, lambda id_: (id_,))
    items = [show_tenant(service, states[id_], principal) for id_ in page]
    return TenantList(items=items, next_cursor=next_cursor)


@router.get(
    "/{tenant}",
    dependencies=[REQUIRE_READ],
    summary="Show a tenant",
    responses=problem_responses(404),
)
async def get_tenant(
    tenant: TenantDep, service: ServiceDep, principal: PrincipalDep, response: Response
) -> TenantView:
    """One tenant. Works while the catalog is unreachable."""
    state = service.manager.tenant_state(tenant)
    response.headers["ETag"] = tenant_etag(state.tenant)
    return show_tenant(service, state, principal)


@router.delete(
    "/{tenant}",
    dependencies=[REQUIRE_ADMIN],
    summary="Delete a tenant",
    responses=problem_responses(404, 409, 412, 428),
)
async def delete_tenant(
    tenant: TenantDep,
    service: ServiceDep,
    operation: OperationDep,
    deadline_seconds: DeadlineDep,
    preconditions: PreconditionsDep,
) -> TenantDeletion | PlanView:
    """Close the tenant's pool, disable its login, and delete its record. Its data stays.

    Leases get the deadline to end, then they are cut.
    """
    state = service.manager.tenant_state(tenant)
    before = state.tenant
    expected = preconditions.expected_generation(before.generation, _mark(before))
    deletion = service.deletions.delete(
        state, operation.actor, deadline=deadline_seconds, expected_generation=expected
    )
    return await operation.run(
        deletion,
        lambda done: TenantDeletion(
            tenant=tenant,
            closed=done.eviction.closed if done.eviction else 0,
            cut=done.eviction.cut if done.eviction else 0,
            login_disabled=done.login_disabled,
        ),
    )


@router.post(
    "/{tenant}/provision",
    dependencies=[REQUIRE_ADMIN],
    summary="Provision a tenant",
    responses=problem_responses(404, 409),
)
async def provision_tenant(
    tenant: TenantDep,
    service: ServiceDep,
    operation: OperationDep,
    *,
    adopt: Annotated[bool, Query(description="Take over existing objects of that name.")] = False,
) -> Provisioning | PlanView:
    """Create what the tenant's strategy needs: role, schema or database, and grants.

    Idempotent. Existing objects that Poolkeeper did not create for this tenant get 409
    `objects-exist`, unless `adopt=true` hands them over. It ends with a login as the tenant's role.
    """

    def show(provisioned: tuple[Tenant, list[str]]) -> Provisioning:
        saved, objects = provisioned
        return Provisioning(tenant=tenant, objects=objects, provisioned_at=saved.provisioned_at)

    state = service.manager.tenant_state(tenant)
    provisioning = service.provisioning.provision(state, operation.actor, adopt=adopt)
    return await operation.run(provisioning, show)


def tenant_etag(tenant: Tenant) -> str:
    """The ETag of *tenant*: its generation, the mark of its uid, and its state.

    A later tenant of the same name starts at generation 1 again, with another uid.
    """
    state = state_of(tenant)
    declared = state is TenantPhase.DECLARED
    return etag(tenant.generation, _mark(tenant), "" if declared else state.value)


def _mark(tenant: Tenant) -> str:
    return tenant.uid.hex[:8]


def _declared(
    service: Service, tenant: TenantId, body: TenantBody, before: Tenant | None
) -> TenantSpec:
    server = body.server or (before.spec.server if before else service.limits.default_server)
    if server is None:
        raise validation_error(
            "body", "server", code="missing", detail="There is no default server: send one."
        )
    if server not in service.manager.servers:
        raise validation_error(
            "body",
            "server",
            code="server_not_declared",
            detail="No server of that name is declared.",
        )
    strategy = body.strategy or (
        before.spec.strategy if before else service.limits.default_strategy
    )
    return TenantSpec(
        id=tenant,
        server=server,
        strategy=strategy,
        **body.model_dump(exclude={"server", "strategy"}),
    )
