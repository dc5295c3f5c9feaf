"""The audit trail's sentences: which event tells which change; and the log's, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import structlog

from app.domain.audit import Actor, AuditEvent
from app.domain.desired_state import AdvisorSettings, DesiredPool, Tenant
from app.domain.lock_table import BackendSignal, LockHolder
from app.domain.pool import PoolSize
from app.domain.recommendation import Recommendation, RecommendationStatus
from app.domain.tenant import OBJECT_PREFIX, TenantSpec
from app.pools.eviction import Eviction

_log = structlog.get_logger(__name__)


def log(event: AuditEvent) -> None:
    """Say in the log what was done, once it is."""
    _log.info(
        "done",
        action=event.action,
        tenant=event.tenant,
        pool=event.pool,
        actor=event.actor.name,
    )


def tenant_saved(before: Tenant | None, spec: TenantSpec, actor: Actor) -> AuditEvent:
    """A tenant was created or changed."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.updated" if before else "tenant.created",
        tenant=spec.id,
        before=_spec(before.spec) if before else None,
        after=_spec(spec),
    )


def tenant_provisioned(tenant: Tenant, objects: list[str], actor: Actor) -> AuditEvent:
    """A tenant's database objects were created."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.provisioned",
        tenant=tenant.spec.id,
        after={"objects": objects},
    )


def credentials_rotated(tenant: Tenant, role: str, actor: Actor) -> AuditEvent:
    """A login role is to get another password."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.credentials_rotated",
        tenant=tenant.spec.id,
        pool=tenant.spec.pool_id,
        after={"role": role},
    )


def role_settings_reset(role: str, pool_id: str, actor: Actor) -> AuditEvent:
    """What was set for all sessions of a login role was undone."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action="pool.role_settings_reset",
        tenant=None if "@" in pool_id else pool_id,
        pool=pool_id,
        after={"role": role},
    )


def grants_revoked(kind: str, name: str, others: Sequence[str], actor: Actor) -> AuditEvent:
    """What a tenant had opened to others was closed."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.closed_to_others",
        tenant=name.removeprefix(OBJECT_PREFIX),
        after={kind.lower(): name, "revoked_from": list(others)},
    )


def tenant_deleting(tenant: Tenant, actor: Actor) -> AuditEvent:
    """A tenant's deletion began."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.deleting",
        tenant=tenant.spec.id,
        before=_spec(tenant.spec),
    )


def tenant_deleted(tenant: Tenant, actor: Actor, eviction: Eviction | None = None) -> AuditEvent:
    """A tenant was forgotten, its login disabled, its data left."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.deleted",
        tenant=tenant.spec.id,
        after={"closed": eviction.closed, "cut": eviction.cut} if eviction else None,
    )


def desired_pool_changed(
    before: DesiredPool | None,
    size: PoolSize,
    actor: Actor,
    pool_id: str,
    *,
    paused: bool,
    spec: TenantSpec | None = None,
    reason: str | None = None,
) -> AuditEvent:
    """Something else is wanted of a pool than before."""
    action = "pool.resized"
    if before is not None and before.paused is not paused:
        action = "pool.paused" if paused else "pool.resumed"
    elif before is None:
        action = "pool.paused" if paused else "pool.declared"
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action=action,
        tenant=str(spec.id) if spec else None,
        pool=pool_id,
        reason=reason,
        before={**asdict(before.size), "paused": before.paused} if before else None,
        after={**asdict(size), "paused": paused},
    )


def pool_operated(
    action: str,
    pool_id: str,
    actor: Actor,
    *,
    tenant: str | None = None,
    after: dict[str, Any] | None = None,
) -> AuditEvent:
    """Something was done to a pool that changes nothing of what is wanted."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action=f"pool.{action}",
        tenant=tenant,
        pool=pool_id,
        after=after,
    )


def lock_holder_ended(
    ending: BackendSignal,
    pool_id: str,
    actor: Actor,
    *,
    tenant: str | None,
    holder: LockHolder,
    reason: str,
) -> AuditEvent:
    """A statement or a connection was ended, for it held too many locks."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action=f"pool.{ending}_ended",
        tenant=tenant,
        pool=pool_id,
        reason=reason,
        after={"pid": holder.backend[0], "role": holder.role, "locks": holder.locks},
    )


def pool_evicted(eviction: Eviction, actor: Actor) -> AuditEvent:
    """A pool was closed."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action="pool.evicted",
        tenant=None if "@" in eviction.pool_id else eviction.pool_id,
        pool=eviction.pool_id,
        reason=eviction.reason,
        after={"closed": eviction.closed, "cut": eviction.cut},
    )


def advisor_saved(before: AdvisorSettings, after: AdvisorSettings, actor: Actor) -> AuditEvent:
    """The advisor's settings changed."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action="advisor.updated",
        before=_advisor(before),
        after=_advisor(after),
    )


def recommendation_closed(
    recommendation: Recommendation, status: RecommendationStatus, actor: Actor
) -> AuditEvent:
    """Something became of a recommendation."""
    return AuditEvent(
        at=datetime.now(UTC),
        actor=actor,
        action=f"recommendation.{status}",
        tenant=recommendation.tenant,
        pool=recommendation.pool_id,
        reason=recommendation.advice.reason,
        before={"max_size": recommendation.max_size},
        after={"id": str(recommendation.id), "new_size": recommendation.advice.new_size},
    )


def _spec(spec: TenantSpec) -> dict[str, Any]:
    return {
        "server": spec.server,
        "strategy": spec.strategy,
        "weight": spec.weight,
        "max_leases": spec.max_leases,
        "labels": dict(spec.labels),
        "advisor_mode": spec.advisor_mode,
    }


def _advisor(settings: AdvisorSettings) -> dict[str, Any]:
    told = asdict(settings)
    del told["generation"]
    return told
