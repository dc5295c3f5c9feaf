"""Findings of the isolation audit, by cause: one cause often concerns many tenants."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import ManagerDep, PrincipalDep
from app.api.http.error_responses import problem_responses
from app.api.http.field_types import examples
from app.api.http.strict_route import StrictRoute
from app.domain.isolation_checks import AuditCheck, Finding, Severity

_RANKS = (Severity.CRITICAL, Severity.WARNING, Severity.NOT_CHECKED)

router = APIRouter(prefix="/v1/findings", tags=["tenants"], route_class=StrictRoute)


class FindingView(BaseModel):
    """A check of the isolation audit that failed, and for whom."""

    check: AuditCheck
    severity: Severity
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
                    "detail": "Role tenant_acme can connect to database postgres. "
                    "Run: REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC;",
                    "count": 2,
                    "tenants": ["acme", "globex"],
                }
            ]
        }
    )

    items: list[FindingView]


@router.get(
    "",
    dependencies=[REQUIRE_READ],
    summary="List findings of the isolation audit",
    responses=problem_responses(),
)
async def list_findings(
    manager: ManagerDep,
    principal: PrincipalDep,
    *,
    named: Annotated[
        int, Query(ge=1, le=100, description="Number of tenants to name for each finding.")
    ] = 10,
) -> FindingList:
    """Lists each check that failed once, with the tenants that it concerns, from the latest audits.

    `GET /v1/tenants?finding=critical` lists all tenants with such a finding. Works while the
    catalog is unreachable.
    """
    concerned: dict[tuple[Severity, AuditCheck], list[tuple[str, Finding]]] = {}
    for id_, state in manager.tenant_states.items():
        if state.isolation and state.isolation.findings and principal.can_access(id_):
            for each in state.isolation.findings:
                concerned.setdefault((each.severity, each.check), []).append((id_, each))
    items = []
    for (severity, check), found in concerned.items():
        found.sort(key=lambda each: each[0])
        items.append(
            FindingView(
                check=check,
                severity=severity,
                # It may name other tenants' roles and databases.
                detail=found[0][1].detail if principal.tenants is None else None,
                count=len(found),
                tenants=[id_ for id_, _ in found[:named]],
            )
        )
    items.sort(key=lambda each: (_RANKS.index(each.severity), -each.count, each.check))
    return FindingList(items=items)
