"""Findings of the isolation audit, by cause: one cause often concerns many tenants."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import ManagerDep, PrincipalDep
from app.api.http.field_types import examples
from app.api.http.strict_route import StrictRoute
from app.control.background import in_slices
from app.domain.isolation_checks import AuditCheck, Finding, Severity

_RANKS = (Severity.CRITICAL, Severity.WARNING, Severity.NOT_CHECKED)
# Tenants after which other requests get a turn.
_SLICE = 500
# Beyond so many causes, others of the same check and severity are one item.
_MOST_CAUSES = 100

_Cause = tuple[Severity, AuditCheck, str | None, str]

router = APIRouter(prefix="/v1/findings", tags=["tenants"], route_class=StrictRoute)


class FindingView(BaseModel):
    """A check of the isolation audit that failed for one cause, and for whom."""

    check: AuditCheck
    severity: Severity
    server: str | None = Field(
        description="Where the cause is, and the SQL is to be run; null: on several servers."
    )
    detail: str | None = Field(
        description="The problem and its fix for the first of these tenants; null for a key that "
        "is bound to tenants.",
    )
    count: int = Field(description="Number of tenants that it concerns.")
    tenants: list[str] = Field(description="The first of them, by ID.")


class FindingList(BaseModel):
    """All findings, the worst and the most frequent first."""

    model_config = examples(
        {
            "items": [
                {
                    "check": "other_databases",
                    "severity": "warning",
                    "server": "local",
                    "detail": "Role tenant_acme can connect to database postgres. "
                    "Run: REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC;",
                    "count": 2,
                    "tenants": ["acme", "globex"],
                }
            ]
        }
    )

    items: list[FindingView]


@router.get("", dependencies=[REQUIRE_READ], summary="List findings of the isolation audit")
async def list_findings(
    manager: ManagerDep,
    principal: PrincipalDep,
    *,
    named: Annotated[
        int, Query(ge=1, le=100, description="Number of tenants to name for each finding.")
    ] = 10,
) -> FindingList:
    """Lists the checks that failed in the latest audits, and the tenants that each concerns.

    There is one item for each cause on each server, with the number of tenants and the first of
    them; beyond 100 items, what remains of a check is one item.
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
        found.values(), key=lambda each: (_RANKS.index(each.severity), -each.count, each.check)
    )
    return FindingList(items=items)


def _first(finding: Finding, key: _Cause, principal: Principal) -> FindingView:
    """The view of a finding with which no tenant is counted yet."""
    _, _, server, _ = key
    return FindingView(
        check=finding.check,
        severity=finding.severity,
        server=server,
        # It may name other tenants' roles and databases.
        detail=finding.detail if principal.tenants is None else None,
        count=0,
        tenants=[],
    )
