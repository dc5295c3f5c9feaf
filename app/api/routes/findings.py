"""Findings by cause, of the isolation audit and on nodes: one cause often affects many tenants."""

from collections import defaultdict
from heapq import nsmallest
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import FleetDep, ManagerDep, PrincipalDep
from app.api.http.strict_route import StrictRoute
from app.control.nodes.fleet import Fleet
from app.control.time_slices import in_slices
from app.domain.isolation_checks import AuditCheck, Finding, Severity

_RANKS = (Severity.CRITICAL, Severity.WARNING, Severity.NOT_CHECKED)
# Other requests get a turn after this many tenants.
_SLICE = 500
# Beyond this many causes, other causes of the same check and severity become one item.
_MOST_CAUSES = 100

NodeCheck = Literal["pooler_version", "agent_version"]
_Cause = tuple[Severity, AuditCheck, str | None, str]

router = APIRouter(prefix="/v1/findings", tags=["tenants"], route_class=StrictRoute)


class FindingView(BaseModel):
    """A failed check with one cause, and the affected tenants."""

    check: AuditCheck | NodeCheck = Field(
        description="A check of the isolation audit, or of a node: `pooler_version`, its PgBouncer "
        "is vulnerable; `agent_version`, its agent and the service are of different versions.",
        examples=["other_databases"],
    )
    severity: Severity
    server: str | None = Field(
        description="Where the cause is, and where to run the SQL; null: on several servers, or on "
        "a node.",
        examples=["local"],
    )
    nodes: list[str] = Field(
        description="The first of the nodes where the cause is, by name.", examples=[[]]
    )
    node_count: int = Field(description="Number of nodes where the cause is.", examples=[0])
    detail: str | None = Field(
        description="The problem and its fix for the first of these tenants; null for a key that "
        "is bound to tenants.",
        examples=[
            (
                "Role tenant_acme can connect to database postgres. "
                "Run: REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC;"
            )
        ],
    )
    count: int = Field(description="Number of tenants that it concerns.", examples=[2])
    tenants: list[str] = Field(
        description="The first of them, by ID.", examples=[["acme", "globex"]]
    )


class FindingList(BaseModel):
    """All findings, the worst and the most frequent first."""

    items: list[FindingView]


@router.get("", dependencies=[REQUIRE_READ], summary="List findings")
async def list_findings(
    manager: ManagerDep,
    fleet: FleetDep,
    principal: PrincipalDep,
    *,
    named: Annotated[
        int,
        Query(ge=1, le=100, description="Number of tenants, and nodes, to name for each finding."),
    ] = 10,
) -> FindingList:
    """Lists the checks that failed in the latest audits, and the tenants that each affects.

    There is one item for each cause on each server, with the number of tenants and the first of
    them; beyond 100 items, the rest of a check is one item. Nodes are an item, too, if their
    PgBouncers have the same known vulnerabilities, or if their agents are of another minor version
    than the service.
    `GET /v1/tenants?finding=critical` lists all tenants with such a finding. Works while the
    catalog is unreachable.
    """
    found: dict[_Cause, FindingView] = {}
    async for id_ in in_slices(sorted(manager.tenant_states), _SLICE):
        state = manager.tenant_states.get(id_)
        if state is None or state.isolation is None or not principal.can_access(id_):
            continue
        for each in state.isolation.findings:
            key: _Cause = each.severity, each.check, state.tenant.spec.server, each.cause
            if key not in found and len(found) >= _MOST_CAUSES:
                key = each.severity, each.check, None, ""
            item = found.get(key) or found.setdefault(key, _first(each, key, principal))
            item.count += 1
            if item.count <= named:
                item.tenants.append(id_)
    items = sorted(
        (*found.values(), *await _on_nodes(fleet, principal, named)),
        key=lambda each: (_RANKS.index(each.severity), -each.count, each.check),
    )
    return FindingList(items=items)


def _first(finding: Finding, key: _Cause, principal: Principal) -> FindingView:
    """The view of a finding before any tenant is counted."""
    _, _, server, _ = key
    return FindingView(
        check=finding.check,
        severity=finding.severity,
        server=server,
        nodes=[],
        node_count=0,
        # It may name other tenants' roles and databases.
        detail=finding.detail if principal.tenants is None else None,
        count=0,
        tenants=[],
    )


async def _on_nodes(fleet: Fleet, principal: Principal, named: int) -> list[FindingView]:
    """What to upgrade on nodes; for a tenant-bound key, on those that serve its tenants."""
    own = principal.tenants
    found: dict[tuple[NodeCheck, str], FindingView] = {}
    tenants: defaultdict[tuple[NodeCheck, str], set[str]] = defaultdict(set)
    async for name, node in in_slices(sorted(fleet.nodes.items()), 1):
        served = node.entries.keys() if own is None else own & node.entries.keys()
        if not served and own is not None:
            continue
        details: dict[NodeCheck, str | None] = {
            "pooler_version": " ".join(node.vulnerabilities),
            "agent_version": node.version_warning,
        }
        for check, detail in details.items():
            if not detail:
                continue
            key = (check, detail if len(found) < _MOST_CAUSES else "")
            item = found.get(key) or found.setdefault(key, _of_nodes(check, detail, own))
            item.node_count += 1
            if item.node_count <= named:
                item.nodes.append(name)
            tenants[key] |= served
    for key, item in found.items():
        item.count = len(tenants[key])
        item.tenants = nsmallest(named, tenants[key])
    return list(found.values())


def _of_nodes(check: NodeCheck, detail: str, own: frozenset[str] | None) -> FindingView:
    """The view of a finding before any node is counted."""
    return FindingView(
        check=check,
        severity=Severity.WARNING,
        server=None,
        nodes=[],
        node_count=0,
        detail=detail if own is None else None,
        count=0,
        tenants=[],
    )
