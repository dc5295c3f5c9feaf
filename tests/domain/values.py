"""Values for tests, complete except for what a test is about."""

from datetime import UTC, datetime
from uuid import uuid4

from app.domain.pool import PoolMetrics
from app.domain.tenant import PoolStrategy, Tenant, TenantId, TenantSpec
from app.pools.recorder import Recorder
from app.pools.tenant_state import TenantState

NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)


def metrics(total: int, idle: int, waiting: int) -> PoolMetrics:
    """The metrics of a pool of `total` connections of which `idle` are unused."""
    return PoolMetrics(
        total_connections=total,
        idle_connections=idle,
        active_connections=max(0, total - idle),
        waiting_requests=waiting,
    )


def account(tenant: str = "acme", *, weight: int = 1, max_leases: int | None = None) -> TenantState:
    """The state of a provisioned tenant of a shared pool, with nothing leased."""
    spec = TenantSpec(
        id=TenantId(tenant),
        server="local",
        strategy=PoolStrategy.SHARED,
        weight=weight,
        max_leases=max_leases,
    )
    declared = Tenant(
        spec=spec,
        uid=uuid4(),
        generation=1,
        provisioned_at=NOON,
        deleting=False,
        created_at=NOON,
        updated_at=NOON,
    )
    return TenantState(declared, Recorder())
