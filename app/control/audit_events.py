"""The audit event of each change."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from app.domain.advisor_settings import AdvisorSettings
from app.domain.application_credential import ApplicationCredential
from app.domain.audit import LEADERSHIP, POLLER, Actor, AuditEvent
from app.domain.desired_pool import DesiredPool
from app.domain.eviction import Eviction
from app.domain.leadership import Instance, Takeover
from app.domain.lock_table import BackendSignal, LockHolder
from app.domain.nodes.declaration import DeclaredNode, NodeSpec
from app.domain.pool import PoolSize
from app.domain.tenant import OBJECT_PREFIX, Tenant, TenantId, TenantSpec, tenant_of_pool

_SIGNALLED = {
    BackendSignal.CANCEL_STATEMENT: "pool.statement_cancelled",
    BackendSignal.TERMINATE_CONNECTION: "pool.connection_terminated",
}


def tenant_saved(before: Tenant | None, spec: TenantSpec, actor: Actor) -> AuditEvent:
    return _event(
        "tenant.updated" if before else "tenant.created",
        actor,
        tenant=spec.id,
        before=_spec(before.spec) if before else None,
        after=_spec(spec),
    )


def tenant_provisioned(tenant: Tenant, objects: list[str], actor: Actor) -> AuditEvent:
    return _event("tenant.provisioned", actor, tenant=tenant.spec.id, after={"objects": objects})


def credentials_rotated(tenant: Tenant, role: str, actor: Actor) -> AuditEvent:
    return _event(
        "tenant.credentials_rotated",
        actor,
        tenant=tenant.spec.id,
        pool=tenant.spec.pool_id,
        after={"role": role},
    )


def tenant_deleting(tenant: Tenant, actor: Actor) -> AuditEvent:
    return _event("tenant.deleting", actor, tenant=tenant.spec.id, before=_spec(tenant.spec))


def tenant_deleted(
    tenant: Tenant,
    actor: Actor,
    eviction: Eviction | None,
    credentials: Sequence[ApplicationCredential],
) -> AuditEvent:
    """Include its pool, if that was open, and its *credentials*."""
    after: dict[str, Any] = {}
    if eviction:
        after |= {"closed": eviction.closed, "cut": eviction.cut}
    if credentials:
        after["revoked"] = [each.user for each in credentials]
    return _event("tenant.deleted", actor, tenant=tenant.spec.id, after=after or None)


def credential_created(
    tenant: TenantId, name: str, expires_at: datetime | None, actor: Actor
) -> AuditEvent:
    after = _credential(f"{tenant}.{name}", expires_at)
    return _event("credential.created", actor, tenant=tenant, after=after)


def credential_revoked(credential: ApplicationCredential, actor: Actor) -> AuditEvent:
    before = _credential(credential.user, credential.expires_at)
    return _event("credential.revoked", actor, tenant=credential.tenant, before=before)


def grants_revoked(kind: str, name: str, grantees: Sequence[str], actor: Actor) -> AuditEvent:
    """Rights that a tenant had granted to others were revoked."""
    return _event(
        "tenant.grants_revoked",
        actor,
        tenant=name.removeprefix(OBJECT_PREFIX),
        after={kind.lower(): name, "revoked_from": list(grantees)},
    )


def role_settings_reset(role: str, pool_id: str, actor: Actor) -> AuditEvent:
    return _pool_event("role_settings_reset", pool_id, actor, after={"role": role})


def verifier_renewed(role: str, pool_id: str, iterations: int, actor: Actor) -> AuditEvent:
    """A role keeps its password; its verifier has fewer iterations."""
    after = {"role": role, "scram_iterations": iterations}
    return _pool_event("verifier_renewed", pool_id, actor, after=after)


def password_restored(role: str, pool_id: str, version: int, actor: Actor) -> AuditEvent:
    """A restore or a failover had undone a rotation of the role's password."""
    after = {"role": role, "password_version": version}
    return _pool_event("password_restored", pool_id, actor, after=after)


def desired_pool_changed(
    before: DesiredPool | None,
    desired: DesiredPool,
    actor: Actor,
    *,
    size_before: PoolSize,
    reason: str | None,
) -> AuditEvent:
    """A change of a pool's desired state.

    Args:
        before: None if nobody has set anything; then *size_before* is the default.
        reason: that of the applied recommendation, if it is one.
    """
    if desired.recycles != (before.recycles if before else 0):
        return pool_operated(
            "recycled_on_nodes", desired.pool_id, actor, {"recycles": desired.recycles}
        )
    if before is not None and before.paused is desired.paused:
        action = "resized"
    elif before is not None or desired.paused:
        action = "paused" if desired.paused else "resumed"
    else:
        action = "declared" if reason is None else "resized"
    if before is None and desired.size != size_before:
        before = replace(desired, size=size_before, pause=None)
    return _pool_event(
        action,
        desired.pool_id,
        actor,
        reason=reason,
        before=_desired(before) if before else None,
        after=_desired(desired),
    )


def pool_operated(action: str, pool_id: str, actor: Actor, after: Mapping[str, Any]) -> AuditEvent:
    """An operation on a pool that does not change its desired state."""
    return _pool_event(action, pool_id, actor, after=after)


def pool_evicted(eviction: Eviction, actor: Actor) -> AuditEvent:
    after = {"closed": eviction.closed, "cut": eviction.cut}
    return _pool_event("evicted", eviction.pool_id, actor, reason=eviction.reason, after=after)


def lock_holder_ended(
    signal: BackendSignal,
    pool_id: str,
    actor: Actor,
    *,
    tenant: str | None,
    holder: LockHolder,
    reason: str,
) -> AuditEvent:
    """A statement or a connection was ended because it held too many locks."""
    return _event(
        _SIGNALLED[signal],
        actor,
        tenant=tenant,
        pool=pool_id,
        reason=reason,
        after={"pid": holder.backend[0], "role": holder.role, "locks": holder.locks},
    )


def advisor_saved(before: AdvisorSettings, after: AdvisorSettings, actor: Actor) -> AuditEvent:
    return _event("advisor.updated", actor, before=_advisor(before), after=_advisor(after))


def node_saved(before: DeclaredNode | None, spec: NodeSpec, actor: Actor) -> AuditEvent:
    return _event(
        "node.updated" if before else "node.created",
        actor,
        before=asdict(before.spec) if before else None,
        after=asdict(spec),
    )


def node_switched(
    action: str, before: DeclaredNode, switches: Mapping[str, bool], actor: Actor
) -> AuditEvent:
    """A node was paused, drained or resumed."""
    name = {"name": before.spec.name}
    known = {each: getattr(before, each) for each in switches}
    return _event(f"node.{action}", actor, before=name | known, after={**name, **switches})


def node_deleted(node: DeclaredNode, actor: Actor) -> AuditEvent:
    return _event("node.deleted", actor, before=asdict(node.spec))


def server_lost(name: str, reason: str | None) -> AuditEvent:
    """A server became unavailable to all its pools; *reason* is None if it is back already."""
    return _event("server.unavailable", POLLER, reason=reason, after={"name": name})


def server_back(name: str) -> AuditEvent:
    return _event("server.available", POLLER, after={"name": name})


def server_budget_changed(name: str, before: int, after: int, max_connections: int) -> AuditEvent:
    """The limits that a server was read to have give it another budget."""
    return _event(
        "server.budget_changed",
        POLLER,
        before={"name": name, "budget": before},
        after={"name": name, "budget": after, "max_connections": max_connections},
    )


def leadership_acquired(instance: Instance, takeover: Takeover) -> AuditEvent:
    """An instance became active; *reason* is set if its predecessor did not stop cleanly."""
    how = "failed" if takeover.is_failover else "stopped, and may have left connections on a server"
    return _event(
        "leadership.acquired",
        LEADERSHIP,
        reason=f"Instance {takeover.predecessor} {how}." if takeover.predecessor else None,
        after={"instance": instance.id, "url": instance.url, "epoch": takeover.epoch},
    )


def _event(action: str, actor: Actor, **fields: Any) -> AuditEvent:
    return AuditEvent(at=datetime.now(UTC), actor=actor, action=action, **fields)


def _pool_event(action: str, pool_id: str, actor: Actor, **fields: Any) -> AuditEvent:
    """The event of a shared pool belongs to no single tenant."""
    return _event(f"pool.{action}", actor, tenant=tenant_of_pool(pool_id), pool=pool_id, **fields)


def _credential(user: str, expires_at: datetime | None) -> dict[str, Any]:
    return {"user": user, "expires_at": expires_at.isoformat() if expires_at else None}


def _spec(spec: TenantSpec) -> dict[str, Any]:
    return {name: value for name, value in spec.as_dict().items() if name != "id"}


def _desired(pool: DesiredPool) -> dict[str, Any]:
    return {**asdict(pool.size), "paused": pool.paused}


def _advisor(settings: AdvisorSettings) -> dict[str, Any]:
    fields = asdict(settings)
    del fields["generation"]
    return fields
