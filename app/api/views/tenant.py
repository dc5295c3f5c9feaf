"""A tenant in the API: its declaration, its provisioning, and the pool that serves it.

It is read from memory only, so that it can be shown while the catalog is unreachable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from app.api.auth.principal import Principal
from app.api.http.field_types import Stale
from app.api.views.pool import PoolSummary
from app.catalog.catalog import Catalog
from app.control.nodes.fleet import Fleet
from app.domain.isolation_checks import (
    Assurance,
    AuditCheck,
    Finding,
    Severity,
    assurance_of,
    checks_of,
)
from app.domain.tenant import AdvisorMode, PoolStrategy, Tenant, TenantSpec
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState


class TenantPhase(StrEnum):
    """The state of a tenant."""

    DECLARED = "declared"
    PROVISIONED = "provisioned"
    DELETING = "deleting"


class IsolationCheckView(BaseModel):
    """The result of one check in Postgres."""

    name: AuditCheck = Field(examples=["other_databases"])
    ok: bool = Field(examples=[False])
    severity: Severity | None = Field(
        description="`critical`: the strategy's promise does not hold. `not_checked`: the check "
        "could not run. Null when it passed.",
        examples=["warning"],
    )
    detail: str | None = Field(
        description="The problem and its fix; null for a key that is bound to tenants.",
        examples=[
            (
                "Role tenant_acme can connect to database postgres. "
                "Run: REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC;"
            )
        ],
    )


class IsolationView(BaseModel):
    """Where the tenant lives inside Postgres, and how well it is isolated there.

    Names are shown whether or not the objects exist yet.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    strategy: PoolStrategy = Field(examples=["per_tenant"])
    assurance: Assurance = Field(
        description="What the isolation withstands. `trusted_sql`: a forgotten WHERE, but not "
        "hostile SQL. `role`: hostile SQL, by its own login role. `database`: the same, and its "
        "own database.",
        examples=["role"],
    )
    database: str | None = Field(
        description="Null when the server is no longer declared.", examples=["tenants"]
    )
    schema_name: str | None = Field(
        alias="schema",
        description="Its own schema; null when its strategy gives it none.",
        examples=["tenant_acme"],
    )
    role: str | None = Field(
        description="The role that its connections log in as.", examples=["tenant_acme"]
    )
    checks: list[IsolationCheckView] = Field(
        description="Results of the latest isolation audit; empty before the first."
    )
    checked_at: datetime | None = Field(
        description="When that audit ran.", examples=["2026-11-20T09:00:30Z"]
    )


class TenantView(BaseModel):
    """A tenant."""

    id: str = Field(examples=["acme"])
    server: str = Field(
        description="The declared server it lives on; immutable.", examples=["local"]
    )
    strategy: PoolStrategy = Field(
        description="How it is isolated; immutable.", examples=["per_tenant"]
    )
    weight: int = Field(description="Its share when connections run short.")
    max_leases: int | None = Field(
        description="Maximum number of leases at a time, connections on nodes included; null: no "
        "limit.",
        examples=[None],
    )
    labels: dict[str, str] = Field(examples=[{"plan": "gold"}])
    advisor_mode: AdvisorMode | None = Field(
        description="How recommendations for its own pool are handled; null: as for the service.",
        examples=[None],
    )
    generation: int = Field(description="Version of what was declared; part of the ETag.")
    state: TenantPhase = Field(examples=["provisioned"])
    created_at: datetime = Field(examples=["2026-11-20T09:00:00Z"])
    updated_at: datetime = Field(examples=["2026-11-20T09:00:02Z"])
    provisioned_at: datetime | None = Field(examples=["2026-11-20T09:00:02Z"])
    isolation: IsolationView
    query_allowed: bool = Field(description="Whether the query endpoint works for it.")
    query_refusal: str | None = Field(description="Why it does not.", examples=[None])
    pool: PoolSummary | None = Field(
        description="The pool that serves it; null while it is neither open nor paused, nor "
        "awaited by callers."
    )
    waiting_on_nodes: int = Field(
        description="Clients that wait on nodes; `pool.waiting` does not count them.", examples=[0]
    )
    stale: Stale


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """Limits of the query endpoint; *timeout* in seconds."""

    timeout: float
    max_rows: int
    allowed_on_shared: bool

    def refusal(self, spec: TenantSpec) -> str | None:
        """Say why a tenant may not use the endpoint; None if it may."""
        if not spec.is_shared or self.allowed_on_shared:
            return None
        return (
            f"Shared tenants of server {spec.server} use one database role, which does not "
            "isolate untrusted SQL. The operator has not allowed it (query_on_shared)."
        )


@dataclass(frozen=True, slots=True)
class TenantViews:
    """Shows tenants as they are now."""

    manager: TenantPoolManager
    catalog: Catalog
    fleet: Fleet
    query_limits: QueryLimits

    def show(self, state: TenantState, principal: Principal) -> TenantView:
        tenant, spec = state.tenant, state.tenant.spec
        refusal = self.query_limits.refusal(spec)
        manager, pool_id = self.manager, spec.pool_id
        return TenantView(
            **spec.as_dict(),
            generation=tenant.generation,
            state=phase_of(tenant),
            created_at=tenant.created_at,
            updated_at=tenant.updated_at,
            provisioned_at=tenant.provisioned_at,
            isolation=self._isolation(state, principal),
            query_allowed=refusal is None,
            query_refusal=refusal,
            pool=PoolSummary.of(manager, pool_id),
            waiting_on_nodes=self.fleet.loads.waiting_of(spec.id),
            stale=not self.catalog.available,
        )

    def _isolation(self, state: TenantState, principal: Principal) -> IsolationView:
        spec, report = state.tenant.spec, state.isolation
        server = self.manager.servers.get(spec.server)
        isolation = self.manager.isolations[spec.strategy]
        has_schema = spec.strategy is PoolStrategy.PER_TENANT
        return IsolationView(
            strategy=spec.strategy,
            assurance=assurance_of(spec.strategy),
            database=isolation.database(server, spec) if server else None,
            schema_name=spec.id.object_name if has_schema else None,
            role=isolation.role(spec) if server else None,
            checks=_checks(spec.strategy, report.findings, principal) if report else [],
            checked_at=report.checked_at if report else None,
        )


def phase_of(tenant: Tenant) -> TenantPhase:
    if tenant.deleting:
        return TenantPhase.DELETING
    if tenant.provisioned_at:
        return TenantPhase.PROVISIONED
    return TenantPhase.DECLARED


def _checks(
    strategy: PoolStrategy, findings: Sequence[Finding], principal: Principal
) -> list[IsolationCheckView]:
    failed = {finding.check: finding for finding in findings}
    # A detail may name other tenants' roles and databases.
    shows_details = principal.tenants is None
    return [
        IsolationCheckView(
            name=check,
            ok=check not in failed,
            severity=failed[check].severity if check in failed else None,
            detail=failed[check].detail if check in failed and shows_details else None,
        )
        for check in checks_of(strategy)
    ]
