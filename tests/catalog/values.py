"""Values to store, complete except for what a test is about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from app.catalog.catalog import Catalog
from app.domain.advisor import (
    Confidence,
    Effect,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
)
from app.domain.audit import Actor, AuditEvent
from app.domain.history import PoolSample
from app.domain.pool import PoolMetrics
from app.domain.recommendation import Recommendation, RecommendationStatus
from app.domain.tenant import PoolStrategy, TenantId, TenantSpec

ACME = TenantId("acme")
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)


def spec(tenant: str = "acme", **changes: Any) -> TenantSpec:
    declared = TenantSpec(id=TenantId(tenant), server="local", strategy=PoolStrategy.PER_TENANT)
    return replace(declared, **changes)


def event(action: str = "tenant.created", **changes: Any) -> AuditEvent:
    recorded = AuditEvent(
        at=NOON, actor=Actor(name="api", request_id="r-1"), action=action, tenant="acme"
    )
    return replace(recorded, **changes)


async def actions(catalog: Catalog) -> list[str]:
    """Recorded actions, newest first."""
    return [recorded.action for recorded in await catalog.audit_log.page()]


def refused_event() -> AuditEvent:
    """An event that Postgres cannot store: no jsonb has a NUL."""
    return event(after={"name": "\0"})


def sample(subject: str = "acme", seconds: float = 0.0, **changes: Any) -> PoolSample:
    """A sample that was measured `seconds` after noon."""
    active = changes.get("active_connections", 0)
    measured = PoolSample(
        subject=subject,
        at=NOON + timedelta(seconds=seconds),
        total_connections=5,
        active_connections=active,
        idle_connections=5 - active,
        waiting_requests=0,
        acquired=0,
        timeouts=0,
        connection_seconds=0.0,
        wait_p95_ms=None,
        wait_p99_ms=None,
        hold_p95_ms=None,
        connect_p95_ms=None,
    )
    return replace(measured, **changes)


def recommendation(pool_id: str = "acme", seconds: float = 0.0, **changes: Any) -> Recommendation:
    """A recommendation made `seconds` after noon, valid for ten minutes."""
    created_at = NOON + timedelta(seconds=seconds)
    given = Recommendation(
        id=uuid4(),
        pool_id=pool_id,
        tenant=None if "@" in pool_id else pool_id,
        rule="hysteresis",
        advice=PoolSizingRecommendation(
            action=ScalingAction.SCALE_UP,
            current_size=5,
            new_size=10,
            reason_code=ReasonCode.QUEUE_ABOVE_TARGET,
            reason="8 requests waiting (threshold 3); grown by 5",
            evidence={"offered_load": 6.5, "needed_size": None},
            confidence=Confidence.MEDIUM,
            expected=Effect(
                late_share_before=0.5,
                late_share_after=None,
                connections_before=5,
                connections_after=10,
            ),
            wanted=12,
        ),
        max_size=5,
        metrics=PoolMetrics(
            total_connections=5, idle_connections=0, active_connections=5, waiting_requests=8
        ),
        status=RecommendationStatus.OPEN,
        created_at=created_at,
        expires_at=created_at + timedelta(minutes=10),
    )
    return replace(given, **changes)


def ids(found: tuple[Recommendation, ...]) -> list[UUID]:
    return [each.id for each in found]
