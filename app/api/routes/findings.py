"""Findings by cause: of the service, its servers and nodes, and of the isolation audit."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import FleetDep, ManagerDep, PrincipalDep, ResponseCacheDep
from app.api.http.sparse_fields import FieldsQuery, SparsePage, excluded_fields
from app.api.http.strict_route import StrictRoute
from app.api.routes.health import ChecksDep
from app.api.views.finding import (
    MOST_CAUSES,
    Cause,
    FindingView,
    in_pool,
    in_service,
    on_nodes,
    on_servers,
)
from app.control.monitoring.snapshot import PoolSnapshot, Snapshot
from app.control.time_slices import in_slices
from app.domain.isolation_checks import Severity
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

_RANKS = (Severity.CRITICAL, Severity.WARNING, Severity.NOT_CHECKED)

router = APIRouter(prefix="/v1/findings", tags=["tenants"], route_class=StrictRoute)


class FindingList(BaseModel):
    """All findings, the worst and the most frequent first."""

    items: list[FindingView]


@router.get(
    "",
    dependencies=[REQUIRE_READ],
    summary="List findings",
    response_model=FindingList | SparsePage,
)
async def list_findings(
    request: Request,
    manager: ManagerDep,
    fleet: FleetDep,
    *,
    checks: ChecksDep,
    cache: ResponseCacheDep,
    principal: PrincipalDep,
    named: Annotated[
        int,
        Query(ge=1, le=100, description="Number of tenants, and nodes, to name for each finding."),
    ] = 10,
    fields: FieldsQuery = None,
) -> Response:
    """Lists what needs attention now, and the tenants that it concerns.

    These are servers that cannot be used, logins that Postgres refuses, paused pools, leases that
    are held for too long, nodes that do not report, are paused, have a problem or are to be
    upgraded, checks of `GET /v1/readiness` that fail, and checks that failed in the latest
    isolation audits. There is one item for each cause on each server, or on all nodes that have
    it, with the number of tenants and the first of them; beyond 100 causes of a check, the rest of
    them is one item, with the detail of each tenant that it names.
    A key that is bound to tenants sees what concerns them, and nothing of the service itself.
    `GET /v1/tenants?finding=critical` lists all tenants with such a finding of the audit. The list
    is at most a second old, checks of the service at most two, and it includes the latest change
    made through this API. Works while the catalog is unreachable.
    """
    excluded = excluded_fields(fields, FindingView)

    async def make(snapshot: Snapshot) -> FindingList:
        items = await _of_tenants(manager, snapshot, principal, named)
        if principal.tenants is not None:
            # Details may name other tenants' roles and databases.
            items = [each.model_copy(update={"detail": None}) for each in items if each.count]
        items += await on_nodes(fleet, principal, named)
        if principal.can_read_all:
            items += in_service(await checks.run())
        return FindingList(items=sorted(items, key=_order))

    return await cache.respond(request, make, exclude=excluded)


async def _of_tenants(
    manager: TenantPoolManager, snapshot: Snapshot, principal: Principal, named: int
) -> list[FindingView]:
    """All servers that need attention, and what concerns the principal's tenants."""
    servers = {str(each.server): each for each in on_servers(manager)}
    pools = {
        each.pool_id: each
        for each in snapshot.pools_of(principal.tenants)
        if each.pause or each.leak_suspects
    }
    found: dict[Cause, FindingView] = {}
    causes_of: Counter[str] = Counter()
    async for row in in_slices(snapshot.tenants_of(principal.tenants)):
        id_ = row.spec.id
        if (state := manager.tenants.get(id_)) is None:
            continue
        own: defaultdict[Cause, list[str]] = defaultdict(list)
        for cause, detail in _causes(manager, state, pools):
            severity, check, server, _ = key = cause
            if key not in found and causes_of[check] >= MOST_CAUSES:
                _, _, server, _ = key = severity, check, None, ""
            if key not in found:
                causes_of[check] += 1
                found[key] = FindingView(check=check, severity=severity, server=server, detail=None)
            own[key].append(detail)
        for key, details in own.items():
            found[key].add(id_, named=named, details=details)
        if state.tenant.spec.server in servers:
            servers[state.tenant.spec.server].add(id_, named=named)
    return [*servers.values(), *found.values()]


def _causes(
    manager: TenantPoolManager, state: TenantState, pools: Mapping[str, PoolSnapshot]
) -> Iterator[tuple[Cause, str]]:
    """What is wrong with a tenant, its login, or its pool if that is one of *pools*."""
    spec = state.tenant.spec
    for each in state.isolation.findings if state.isolation is not None else ():
        yield (each.severity, each.check, spec.server, each.cause), each.detail
    if refusal := manager.connectors.refusal(spec):
        yield (Severity.CRITICAL, "tenant_login", spec.server, spec.pool_id), refusal
    if pools and (pool := pools.get(spec.pool_id)):
        yield from in_pool(pool, spec.id)


def _order(item: FindingView) -> tuple[int, bool, int, str]:
    """The worst first; the service itself before what concerns some tenants."""
    is_of_service = item.server is None and not item.node_count and not item.count
    return _RANKS.index(item.severity), not is_of_service, -item.count, item.check
