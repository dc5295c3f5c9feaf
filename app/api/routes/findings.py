"""Findings by cause: of the service, its servers and nodes, and of the isolation audit."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import FleetDep, ManagerDep, PrincipalDep, ResponseCacheDep
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
from app.control.time_slices import in_slices
from app.domain.isolation_checks import Severity

_RANKS = (Severity.CRITICAL, Severity.WARNING, Severity.NOT_CHECKED)

router = APIRouter(prefix="/v1/findings", tags=["tenants"], route_class=StrictRoute)


class FindingList(BaseModel):
    """All findings, the worst and the most frequent first."""

    items: list[FindingView]


@router.get("", dependencies=[REQUIRE_READ], summary="List findings")
async def list_findings(
    manager: ManagerDep,
    fleet: FleetDep,
    checks: ChecksDep,
    cache: ResponseCacheDep,
    principal: PrincipalDep,
    *,
    named: Annotated[
        int,
        Query(ge=1, le=100, description="Number of tenants, and nodes, to name for each finding."),
    ] = 10,
) -> FindingList:
    """Lists what needs attention now, and the tenants that it concerns.

    These are servers that cannot be used, logins that Postgres refuses, paused pools, leases that
    are held for too long, nodes that do not report, are paused, have a problem or are to be
    upgraded, checks of `GET /v1/readiness` that fail, and checks that failed in the latest
    isolation audits. There is one item for each cause on each server, or on all nodes that have
    it, with the number of tenants and the first of them; beyond 100 items, the rest of a check is
    one item.
    A key that is bound to tenants sees what concerns them, and nothing of the service itself.
    `GET /v1/tenants?finding=critical` lists all tenants with such a finding of the audit. Works
    while the catalog is unreachable.
    """
    found: dict[Cause, FindingView] = {}
    snapshot = await cache.snapshot()
    pools = {
        each.pool_id: each
        for each in snapshot.pools_of(principal.tenants)
        if each.pause or each.leak_suspects
    }
    servers = {str(each.server): each for each in on_servers(manager)}
    async for id_ in in_slices(sorted(manager.tenants)):
        state = manager.tenants.get(id_)
        if state is None or not principal.can_access(id_):
            continue
        spec = state.tenant.spec
        causes: list[tuple[Cause, str]] = [
            ((each.severity, each.check, spec.server, each.cause), each.detail)
            for each in (state.isolation.findings if state.isolation is not None else ())
        ]
        if refusal := manager.connectors.refusal(spec):
            causes.append(((Severity.CRITICAL, "tenant_login", spec.server, spec.pool_id), refusal))
        if pools and (pool := pools.get(spec.pool_id)):
            causes += in_pool(pool, spec.id)
        for cause, detail in causes:
            _item(found, cause, detail).add(id_, named=named)
        if spec.server in servers:
            servers[spec.server].add(id_, named=named)
    items = [*servers.values(), *found.values()]
    if principal.tenants is not None:
        # Details may name other tenants' roles and databases.
        items = [each.model_copy(update={"detail": None}) for each in items if each.count]
    items += await on_nodes(fleet, principal, named)
    if principal.can_read_all:
        items += in_service(await checks.run())
    return FindingList(items=sorted(items, key=_order))


def _item(found: dict[Cause, FindingView], cause: Cause, detail: str) -> FindingView:
    """The item of *cause*, which begins with *detail*."""
    severity, check, server, _ = cause
    if cause not in found and len(found) >= MOST_CAUSES:
        cause, server = (severity, check, None, ""), None
    if cause not in found:
        found[cause] = FindingView(
            check=check,
            severity=severity,
            server=server,
            detail=detail,
        )
    return found[cause]


def _order(item: FindingView) -> tuple[int, bool, int, str]:
    """The worst first; the service itself before what concerns some tenants."""
    is_of_service = item.server is None and not item.node_count and not item.count
    return _RANKS.index(item.severity), not is_of_service, -item.count, item.check
