"""Plans: the steps of an operation, in order, and their effects on connections.

Pure. A dry run returns the plan that an execution would follow. Effects are estimates: callers may
come and go between planning and execution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from app.domain.audit import AuditEvent
from app.domain.desired_pool import DesiredPool
from app.domain.pool import PoolMetrics, PoolSize
from app.domain.tenant import TenantSpec


class PlanAction(StrEnum):
    """A kind of step."""

    RECORD = "record"
    """Store desired state with its audit event."""

    FORGET = "forget"
    """Delete the record; never data."""

    OPEN = "open"
    RESIZE = "resize"
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "close"
    RECYCLE = "recycle"
    CHECK = "check"

    CREATE_OBJECTS = "create_objects"
    """Create or repair a tenant's object in Postgres."""

    CHANGE_PASSWORD = "change_password"  # noqa: S105 - a step's name
    DISABLE_LOGIN = "disable_login"
    RUN_STATEMENT = "run_statement"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One step; `before` and `after` hold JSON values and never a secret.

    Attributes:
        target: kind and name, such as `pool acme`.
    """

    action: PlanAction
    target: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """The effects of a plan on connections; `leases_cut` is an upper bound."""

    connections_opened: int = 0
    connections_closed: int = 0
    leases_cut: int = 0

    def __add__(self, other: Effects) -> Effects:
        return Effects(
            connections_opened=self.connections_opened + other.connections_opened,
            connections_closed=self.connections_closed + other.connections_closed,
            leases_cut=self.leases_cut + other.leases_cut,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of an operation in order, its effects, and warnings for the person who decides."""

    steps: tuple[PlanStep, ...] = ()
    effects: Effects = field(default_factory=Effects)
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Plan) -> Plan:
        return Plan(
            steps=self.steps + other.steps,
            effects=self.effects + other.effects,
            warnings=self.warnings + other.warnings,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualPool:
    """An open pool at planning time."""

    size: PoolSize
    paused: bool
    metrics: PoolMetrics


def plan_step(
    action: PlanAction,
    target: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    effects: Effects | None = None,
) -> Plan:
    step = PlanStep(action=action, target=target, before=before, after=after)
    return Plan(steps=(step,), effects=effects or Effects())


def plan_record(target: str, event: AuditEvent) -> Plan:
    """Plan to store what *event* says of *target*; nothing if it changes nothing."""
    if event.before == event.after:
        return Plan()
    return plan_step(PlanAction.RECORD, target, before=event.before, after=event.after)


def warn_if_shared(spec: TenantSpec, tenants: int) -> Plan:
    """Say how many tenants an operation on a shared pool affects."""
    if not spec.is_shared or tenants < 2:  # noqa: PLR2004 - one tenant is the caller
        return Plan()
    return Plan(warnings=(f"The pool is shared: this touches {tenants} tenants.",))


def plan_pool(desired: DesiredPool, actual: ActualPool | None, *, open_now: bool = False) -> Plan:
    """Plan to bring a pool from *actual* (None: not open) to *desired*.

    1. It is not open: open it if it has a min_size or *open_now* is set; any other pool opens on
       first use.
    2. It is open: resize first, so that a resumed pool serves with its new size.
    """
    target, size, paused = f"pool {desired.pool_id}", desired.size, desired.paused
    if actual is None:
        if not open_now and (not size.min_size or paused):
            return Plan()
        opened = 0 if paused else max(size.min_size, size.warmup_size)
        return plan_step(
            PlanAction.OPEN,
            target,
            after={**asdict(size), "paused": paused},
            effects=Effects(connections_opened=opened),
        )
    plan = Plan()
    if actual.size != size:
        plan += plan_step(
            PlanAction.RESIZE,
            target,
            before=asdict(actual.size),
            after=asdict(size),
            effects=_effects_of_resize(desired, actual.metrics),
        )
    if actual.paused and not paused:
        plan += plan_step(PlanAction.RESUME, target)
    elif paused and not actual.paused:
        effects = Effects(connections_closed=actual.metrics.total_connections)
        plan += plan_step(PlanAction.PAUSE, target, effects=effects)
    return plan


def plan_close(pool_id: str, metrics: PoolMetrics, deadline: float) -> Plan:
    """Plan to close an open pool; leases get *deadline* seconds to end."""
    warnings = []
    if metrics.active_connections and deadline:
        warnings.append(
            f"Active leases ({metrics.active_connections}) get {deadline:g} s to end; after that "
            "they are cut."
        )
    if metrics.waiting_requests:
        warnings.append(f"Waiting callers ({metrics.waiting_requests}) would be refused.")
    effects = Effects(
        connections_closed=metrics.total_connections, leases_cut=metrics.active_connections
    )
    after = {"deadline_seconds": deadline}
    closing = plan_step(PlanAction.CLOSE, f"pool {pool_id}", after=after, effects=effects)
    return closing + Plan(warnings=tuple(warnings))


def plan_recycle(pool_id: str, size: PoolSize, metrics: PoolMetrics) -> Plan:
    """Plan to replace every connection; the pool reopens those that it keeps or lends."""
    reopened = min(max(size.min_size, metrics.active_connections), metrics.total_connections)
    effects = Effects(connections_opened=reopened, connections_closed=metrics.total_connections)
    return plan_step(PlanAction.RECYCLE, f"pool {pool_id}", effects=effects)


def _effects_of_resize(desired: DesiredPool, metrics: PoolMetrics) -> Effects:
    size, total = desired.size, metrics.total_connections
    # A pool of this size opens its min_size and what waiting callers need.
    needed = max(size.min_size, metrics.active_connections + metrics.waiting_requests)
    missing = max(0, min(needed, size.max_size) - total)
    return Effects(
        connections_opened=0 if desired.paused else missing,
        connections_closed=max(0, total - size.max_size),
    )
