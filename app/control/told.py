"""The audit trail's sentences: which event tells which change; and the log's, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import structlog

from app.domain.desired import AdvisorSettings, DesiredPool, Tenant
from app.domain.event import Actor, Event
from app.domain.lock_table import Ending, LockHolder
from app.domain.pool import PoolSize
from app.domain.recommendation import Recommendation, RecommendationStatus
from app.domain.tenant import OBJECT_PREFIX, TenantSpec
from app.pools.eviction import Eviction

_log = structlog.get_logger(__name__)


def log(event: Event) -> None:
    """Say in the log what was done, once it is."""
    _log.info(
        "done",
        action=event.action,
        tenant=event.tenant,
        pool=event.pool,
        actor=event.actor.name,
    )


def tenant_saved(before: Tenant | None, spec: TenantSpec, actor: Actor) -> Event:
    """A tenant was created or changed."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.updated" if before else "tenant.created",
        tenant=spec.id,
        before=_spec(before.spec) if before else None,
        after=_spec(spec),
    )


def provisioned(tenant: Tenant, objects: list[str], actor: Actor) -> Event:
    """A tenant's database objects were created."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.provisioned",
        tenant=tenant.spec.id,
        after={"objects": objects},
    )


def credentials_rotated(tenant: Tenant, role: str, actor: Actor) -> Event:
    """A login role is to get another password."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.credentials_rotated",
        tenant=tenant.spec.id,
        pool=tenant.spec.pool_id,
        after={"role": role},
    )


def settings_reset(role: str, pool_id: str, actor: Actor) -> Event:
    """What was set for all sessions of a login role was undone."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action="pool.role_settings_reset",
        tenant=None if "@" in pool_id else pool_id,
        pool=pool_id,
        after={"role": role},
    )


def closed_again(kind: str, name: str, others: Sequence[str], actor: Actor) -> Event:
    """What a tenant had opened to others was closed."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.closed_to_others",
        tenant=name.removeprefix(OBJECT_PREFIX),
        after={kind.lower(): name, "revoked_from": list(others)},
    )


def tenant_deleting(tenant: Tenant, actor: Actor) -> Event:
    """A tenant's deletion began."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.deleting",
        tenant=tenant.spec.id,
        before=_spec(tenant.spec),
    )


def tenant_deleted(tenant: Tenant, actor: Actor, eviction: Eviction | None = None) -> Event:
    """A tenant was forgotten, its login disabled, its data left."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action="tenant.deleted",
        tenant=tenant.spec.id,
        after={"closed": eviction.closed, "cut": eviction.cut} if eviction else None,
    )


def pool_wanted(
    before: DesiredPool | None,
    size: PoolSize,
    actor: Actor,
    pool_id: str,
    *,
    paused: bool,
    spec: TenantSpec | None = None,
    reason: str | None = None,
) -> Event:
    """Something else is wanted of a pool than before."""
    action = "pool.resized"
    if before is not None and before.paused is not paused:
        action = "pool.paused" if paused else "pool.resumed"
    elif before is None:
        action = "pool.paused" if paused else "pool.declared"
    return Event(
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
) -> Event:
    """Something was done to a pool that changes nothing of what is wanted."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action=f"pool.{action}",
        tenant=tenant,
        pool=pool_id,
        after=after,
    )


def locks_relieved(
    ending: Ending,
    pool_id: str,
    actor: Actor,
    *,
    tenant: str | None,
    holder: LockHolder,
    reason: str,
) -> Event:
    """A statement or a connection was ended, for it held too many locks."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action=f"pool.{ending}_ended",
        tenant=tenant,
        pool=pool_id,
        reason=reason,
        after={"pid": holder.backend[0], "role": holder.role, "locks": holder.locks},
    )


def pool_evicted(eviction: Eviction, actor: Actor) -> Event:
    """A pool was closed."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action="pool.evicted",
        tenant=None if "@" in eviction.pool_id else eviction.pool_id,
        pool=eviction.pool_id,
        reason=eviction.reason,
        after={"closed": eviction.closed, "cut": eviction.cut},
    )


def advisor_saved(before: AdvisorSettings, after: AdvisorSettings, actor: Actor) -> Event:
    """The advisor's settings changed."""
    return Event(
        at=datetime.now(UTC),
        actor=actor,
        action="advisor.updated",
        before=_advisor(before),
        after=_advisor(after),
    )


def recommendation_closed(
    recommendation: Recommendation, status: RecommendationStatus, actor: Actor
) -> Event:
    """Something became of a recommendation."""
    return Event(
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
