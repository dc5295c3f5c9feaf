"""What a change would do, told without doing it: its steps, and what they mean for connections.

Pure. The steps of a pool are those of `plan`; their effects are reckoned from what the pool is
at this moment, so they are a forecast: callers come and go before the change itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from app.domain.plan import Open, Pause, Resize, Resume, Step
from app.domain.pool import PoolMetrics, PoolSize

_NOTHING_OPEN = PoolMetrics(
    total_connections=0, idle_connections=0, active_connections=0, waiting_requests=0
)


class PlanAction(StrEnum):
    """One kind of step."""

    RECORD = "record"
    """Store what is wanted, with its event."""

    FORGET = "forget"
    """Remove what was stored; never data."""

    OPEN = "open"
    RESIZE = "resize"
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "close"
    RECYCLE = "recycle"
    CHECK = "check"

    CREATE_OBJECTS = "create_objects"
    """Create or mend what the tenant needs inside Postgres."""

    CHANGE_PASSWORD = "change_password"  # noqa: S105 - a step's name
    DISABLE_LOGIN = "disable_login"
    RUN_STATEMENT = "run_statement"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One step. `before` and `after` hold JSON values and never a secret.

    Attributes:
        target: its kind and its name, such as `pool acme`.
    """

    action: PlanAction
    target: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What a change means for connections; `leases_cut` is the most there can be."""

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
    """A change that was not made: what it would do, in order, and what to mind."""

    steps: tuple[PlanStep, ...] = ()
    effects: Effects = field(default_factory=Effects)
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Plan) -> Plan:
        return Plan(
            steps=self.steps + other.steps,
            effects=self.effects + other.effects,
            warnings=self.warnings + other.warnings,
        )


def plan_of_steps(pool_id: str, steps: list[Step], now: PoolMetrics | None) -> Plan:
    """What carrying out `plan`'s *steps* would do to the pool that is *now* so (None: not open)."""
    preview = Plan()
    is_paused = any(isinstance(step, Pause) for step in steps)
    for step in steps:
        effects = _effects(step, now or _NOTHING_OPEN, is_paused=is_paused)
        preview += Plan(steps=(_planned(pool_id, step),), effects=effects)
    return preview


def plan_close(pool_id: str, now: PoolMetrics, deadline: float) -> Plan:
    """What closing the open pool would do when leases get *deadline* seconds."""
    after = {"deadline_seconds": deadline}
    step = PlanStep(action=PlanAction.CLOSE, target=f"pool {pool_id}", after=after)
    warnings = []
    if now.active_connections and deadline:
        warnings.append(
            f"{now.active_connections} leases under way get {deadline:g} s to end; "
            "those that do not are cut."
        )
    if now.waiting_requests:
        warnings.append(f"{now.waiting_requests} callers who wait would be refused.")
    return Plan(
        steps=(step,),
        effects=Effects(
            connections_closed=now.total_connections, leases_cut=now.active_connections
        ),
        warnings=tuple(warnings),
    )


def plan_recycle(pool_id: str, size: PoolSize, now: PoolMetrics) -> Plan:
    """What replacing every connection would do; the pool opens again what it keeps or needs."""
    reopened = min(max(size.min_size, now.active_connections), now.total_connections)
    return Plan(
        steps=(PlanStep(action=PlanAction.RECYCLE, target=f"pool {pool_id}"),),
        effects=Effects(
            connections_opened=reopened,
            connections_closed=now.total_connections,
        ),
    )


def _planned(pool_id: str, step: Step) -> PlanStep:
    target = f"pool {pool_id}"
    match step:
        case Open(size=size, paused=paused):
            after = {**asdict(size), "paused": paused}
            return PlanStep(action=PlanAction.OPEN, target=target, after=after)
        case Resize(before=before, after=size):
            return PlanStep(
                action=PlanAction.RESIZE, target=target, before=asdict(before), after=asdict(size)
            )
        case Pause():
            return PlanStep(action=PlanAction.PAUSE, target=target)
        case Resume():
            return PlanStep(action=PlanAction.RESUME, target=target)


def _effects(step: Step, now: PoolMetrics, *, is_paused: bool) -> Effects:
    match step:
        case Open(size=size, paused=paused):
            return Effects(connections_opened=0 if paused else max(size.min_size, size.warmup_size))
        case Resize(after=size):
            missing = 0 if is_paused else _missing(size, now)
            surplus = max(0, now.total_connections - size.max_size)
            return Effects(connections_opened=missing, connections_closed=surplus)
        case Pause():
            return Effects(connections_closed=now.total_connections)
        case Resume():
            return Effects()


def _missing(size: PoolSize, now: PoolMetrics) -> int:
    """How many connections a pool of this size would open now: what it keeps, what is awaited."""
    wanted = max(size.min_size, now.active_connections + now.waiting_requests)
    return max(0, min(wanted, size.max_size) - now.total_connections)
