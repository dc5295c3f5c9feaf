"""A tenant as the API shows it: what was declared, how far it has come, what serves it.

Read from memory alone, so that it can be shown while the catalog is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.auth.principal import Principal
from app.api.http.dependencies import Service
from app.domain.advisor_mode import AdvisorMode
from app.domain.desired_state import Tenant
from app.domain.isolation_policy import (
    Assurance,
    AuditCheck,
    Finding,
    Severity,
    assurance_of,
    checks_of,
)
from app.domain.pool import PoolState
from app.domain.tenant import PoolStrategy, TenantSpec
from app.pools.tenant_state import TenantState

TENANT_EXAMPLE: dict[str, Any] = {
    "id": "acme",
    "server": "local",
    "strategy": "per_tenant",
    "weight": 1,
    "max_leases": None,
    "labels": {"plan": "gold"},
    "advisor_mode": None,
    "generation": 1,
    "state": "provisioned",
    "created_at": "2026-11-20T09:00:00Z",
    "updated_at": "2026-11-20T09:00:02Z",
    "provisioned_at": "2026-11-20T09:00:02Z",
    "isolation": {
        "strategy": "per_tenant",
        "assurance": "role",
        "database": "tenants",
        "schema": "tenant_acme",
        "role": "tenant_acme",
        "checks": [
            {"name": "role_attributes", "ok": True, "severity": None, "detail": None},
            {
                "name": "other_databases",
                "ok": False,
                "severity": "warning",
                "detail": "It may connect to postgres as well; "
                "REVOKE CONNECT, TEMPORARY ON DATABASE … FROM PUBLIC.",
            },
        ],
        "checked_at": "2026-11-20T09:00:30Z",
    },
    "query_allowed": True,
    "query_refusal": None,
    "pool": {
        "pool_id": "acme",
        "state": "ready",
        "size": 2,
        "idle": 1,
        "active": 1,
        "waiting": 0,
    },
    "stale": False,
}


class TenantPhase(StrEnum):
    """How far a tenant has come."""

    DECLARED = "declared"
    PROVISIONED = "provisioned"
    DELETING = "deleting"


class PoolSummary(BaseModel):
    """The open pool that serves a tenant."""

    pool_id: str
    state: PoolState
    size: int = Field(description="Open connections.")
    idle: int
    active: int
    waiting: int = Field(description="Callers waiting for a connection.")


class IsolationCheckView(BaseModel):
    """One thing that was looked at in Postgres."""

    name: AuditCheck
    ok: bool
    severity: Severity | None = Field(
        description="How bad it is; critical: the promise does not hold; not_checked: the check "
        "could not be made. Null when all is well."
    )
    detail: str | None = Field(
        description="What is wrong, and what mends it; not for a key that is bound to tenants."
    )


class IsolationView(BaseModel):
    """Where the tenant lives inside Postgres, what that promises, and whether the promise holds.

    Names are told whether or not they exist yet.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    strategy: PoolStrategy
    assurance: Assurance = Field(
        description="What it holds against. trusted_sql: a forgotten WHERE, not hostile SQL; "
        "role: hostile SQL, by a login role of its own; database: by a database of its own too."
    )
    database: str | None = Field(description="Null when the server is no longer declared.")
    schema_name: str | None = Field(
        alias="schema", description="Its own schema; null when the strategy gives it none."
    )
    role: str | None = Field(description="The role its connections log in as.")
    checks: list[IsolationCheckView] = Field(
        description="What the last look found; none before it."
    )
    checked_at: datetime | None = Field(description="When that look was.")


class TenantView(BaseModel):
    """A tenant."""

    model_config = ConfigDict(json_schema_extra={"examples": [TENANT_EXAMPLE]})

    id: str
    server: str = Field(description="The declared server it lives on; immutable.")
    strategy: PoolStrategy = Field(description="How it is isolated; immutable.")
    weight: int = Field(description="Its share when connections are scarce.")
    max_leases: int | None = Field(description="Most leases it may hold at once; null: no cap.")
    labels: dict[str, str]
    advisor_mode: AdvisorMode | None = Field(
        description="What becomes of advice about its own pool; null: as for the whole service."
    )
    generation: int = Field(description="Grows with every change; the ETag.")
    state: TenantPhase
    created_at: datetime
    updated_at: datetime
    provisioned_at: datetime | None
    isolation: IsolationView
    query_allowed: bool = Field(description="Whether the query endpoint is open to it.")
    query_refusal: str | None = Field(description="Why it is not.")
    pool: PoolSummary | None = Field(description="The open pool that serves it, if one is open.")
    stale: bool = Field(description="Whether the catalog is away, and this is from memory.")


def show_tenant(service: Service, account: TenantState, caller: Principal) -> TenantView:
    """The tenant of *account*, as it is now."""
    tenant, spec = account.tenant, account.tenant.spec
    refusal = query_refusal(service, spec)
    return TenantView(
        **spec.as_dict(),
        generation=tenant.generation,
        state=state_of(tenant),
        created_at=tenant.created_at.astimezone(UTC),
        updated_at=tenant.updated_at.astimezone(UTC),
        provisioned_at=tenant.provisioned_at and tenant.provisioned_at.astimezone(UTC),
        isolation=_isolation(service, account, caller),
        query_allowed=refusal is None,
        query_refusal=refusal,
        pool=_pool(service, spec),
        stale=not service.catalog.available,
    )


def state_of(tenant: Tenant) -> TenantPhase:
    """How far *tenant* has come."""
    if tenant.deleting:
        return TenantPhase.DELETING
    return TenantPhase.PROVISIONED if tenant.provisioned_at else TenantPhase.DECLARED


def query_refusal(service: Service, spec: TenantSpec) -> str | None:
    """Why the query endpoint is closed to this tenant; None if it is open."""
    if not spec.is_shared or spec.server in service.limits.query_on_shared:
        return None
    return (
        f"Shared tenants of server {spec.server} use one database role, which does not hold "
        "against free SQL; the operator has not allowed it."
    )


def _isolation(service: Service, account: TenantState, caller: Principal) -> IsolationView:
    spec, report = account.tenant.spec, account.isolation
    server = service.manager.servers.get(spec.server)
    isolation = service.manager.isolations[spec.strategy]
    has_schema = spec.strategy is PoolStrategy.PER_TENANT
    return IsolationView(
        strategy=spec.strategy,
        assurance=assurance_of(spec.strategy),
        database=isolation.database(server, spec) if server else None,
        schema_name=spec.id.object_name if has_schema else None,
        role=isolation.role(spec) if server else None,
        checks=_checks(spec.strategy, report.findings, caller) if report else [],
        checked_at=report.checked_at if report else None,
    )


def _checks(
    strategy: PoolStrategy, findings: Sequence[Finding], caller: Principal
) -> list[IsolationCheckView]:
    failed = {finding.check: finding for finding in findings}
    # A detail may name other tenants' roles and databases.
    is_told = caller.tenants is None
    return [
        IsolationCheckView(
            name=check,
            ok=check not in failed,
            severity=failed[check].severity if check in failed else None,
            detail=failed[check].detail if check in failed and is_told else None,
        )
        for check in checks_of(strategy)
    ]


def _pool(service: Service, spec: TenantSpec) -> PoolSummary | None:
    pool = service.manager.find(spec.pool_id)
    if pool is None:
        return None
    now = pool.metrics
    return PoolSummary(
        pool_id=pool.pool_id,
        state=pool.state,
        size=now.total_connections,
        idle=now.idle_connections,
        active=now.active_connections,
        waiting=now.waiting_requests,
    )
