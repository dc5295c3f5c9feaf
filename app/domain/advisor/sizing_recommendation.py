"""What a sizing rule recommends for a pool at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final


class ScalingAction(StrEnum):
    """The direction of a size change."""

    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    STABLE = "stable"

    @classmethod
    def between(cls, before: int, after: int) -> ScalingAction:
        """The action that takes the size from *before* to *after*."""
        if after == before:
            return cls.STABLE
        return cls.SCALE_UP if after > before else cls.SCALE_DOWN


class ReasonCode(StrEnum):
    """Reason codes: a closed list that programs may switch on."""

    # --- hysteresis
    QUEUE_ABOVE_TARGET = "queue_above_target"
    """More callers wait than the target, for enough samples in a row: grow."""

    IDLE_ABOVE_RATIO = "idle_above_ratio"
    """A larger share is idle than the threshold, for enough samples in a row: shrink."""

    COLLECTING_SAMPLES = "collecting_samples"
    """The condition holds, but not yet for enough samples in a row, or for the whole window."""

    WITHIN_THRESHOLDS = "within_thresholds"
    """Neither threshold is exceeded."""

    # --- demand: the size follows the load
    DEMAND_ABOVE_SIZE = "demand_above_size"
    """Arrivals times hold time need more connections than there are: grow."""

    ROOM_FOR_BURSTS = "room_for_bursts"
    """The load is carried, but a burst would have to wait for the next tick: grow."""

    LATE_WAITS = "late_waits"
    """Too many callers waited too long, whatever the forecast: grow."""

    DEMAND_BELOW_SIZE = "demand_below_size"
    """Nothing in the whole window needed as many connections: shrink."""

    SIZE_FITS = "size_fits"
    """The size is right for the load, or too close to it to be worth a change."""

    RECENT_PEAK = "recent_peak"
    """The load fell, but a peak of the same window still counts."""

    AT_MAXIMUM = "at_maximum"
    """More would help, but the pool is as large as it may become."""

    # --- growing would not help
    NOT_READY = "not_ready"
    """The pool is paused, draining, closed or still opening."""

    CONNECTS_FAILING = "connects_failing"
    """Connections cannot be opened, so a larger pool would not get more of them."""

    OPEN_BELOW_TARGET = "open_below_target"
    """Callers wait although the pool may open more: the database, network or budget is short."""

    LEAK_SUSPECTED = "leak_suspected"
    """Leases are held beyond the leak threshold: the application keeps connections."""

    IDLE_IN_TRANSACTION = "idle_in_transaction"
    """Too many of our back-ends sit idle in a transaction: the application keeps connections."""

    LOOP_LAG = "loop_lag"
    """The service itself stalled for about as long as its callers waited, and caused the waits."""

    TOO_FEW_EVENTS = "too_few_events"
    """Too little happened to judge by."""

    CPU_BOUND = "cpu_bound"
    """The database already runs as many statements as it has cores."""

    LOCK_CONTENTION = "lock_contention"
    """Too many of the database's active back-ends wait for locks."""

    SLOW_READER = "slow_reader"
    """Back-ends wait for callers to read their results."""

    # --- did it pay?
    TRIAL_PENDING = "trial_pending"
    """Statements take longer the more there are: measuring first, then one growth on trial."""

    TRIAL_RUNNING = "trial_running"
    """A growth is on trial: its throughput is being compared."""

    PAST_KNEE = "past_knee"
    """Leases take more than twice as long as under light load: fewer connections, on trial."""

    GROWTH_UNDONE = "growth_undone"
    """The last growth brought no throughput: undo it."""

    CEILING_AFTER_TRIAL = "ceiling_after_trial"
    """The load asks for more, but growing was tried recently and did not pay."""

    HELD_FOR_TRIAL = "held_for_trial"
    """Another pool of the server is on trial, and its measurement must not be disturbed."""

    # --- one budget
    SERVER_BUDGET = "server_budget"
    """The server's connection budget grants less than the load asks for."""

    # --- another kind of pool
    COLD_TENANT = "cold_tenant"
    """Too little load for connections of its own."""

    HOT_TENANT = "hot_tenant"
    """Enough load for a pool of its own."""


_REFUSALS = frozenset(
    {
        ReasonCode.AT_MAXIMUM,
        ReasonCode.OPEN_BELOW_TARGET,
        ReasonCode.LEAK_SUSPECTED,
        ReasonCode.IDLE_IN_TRANSACTION,
        ReasonCode.CPU_BOUND,
        ReasonCode.LOCK_CONTENTION,
        ReasonCode.SLOW_READER,
        ReasonCode.CEILING_AFTER_TRIAL,
        ReasonCode.SERVER_BUDGET,
    }
)


class Confidence(StrEnum):
    """How much evidence there is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class TrialPhase(StrEnum):
    """How a recommendation relates to a trial of growth."""

    PROPOSED = "proposed"
    """Applying it puts the growth on trial."""

    RUNNING = "running"
    """The pool's last growth is on trial now."""


_ON_NODES = "nodes_mean_active"

EVIDENCE: Final[Mapping[str, str]] = {
    "arrivals_per_second": "Callers per second, as forecast: smoothed, plus a margin for swings.",
    "hold_ms": "Mean duration of a lease, as far as it counts for the load, milliseconds.",
    "base_hold_ms": "Mean duration of a lease while the pool was less than half busy.",
    "hold_cv2": "Squared coefficient of variation of the leases' durations.",
    "offered_load": "Connections busy on average if nobody waited: arrivals x hold, erlangs.",
    "mean_active": "Connections leased, averaged over the interval.",
    "mean_waiting": "Callers waiting, averaged over the interval.",
    "late_share": "Share of the window's callers that waited too long or got no connection, 0..1.",
    "late_share_bound": "Its lower confidence bound (Wilson, one-sided 95 %).",
    "events": "Callers seen in the window.",
    "needed_size": "Least size at which few enough wait too long; null: above the maximum.",
    "window_peak_size": "Largest size needed in the window.",
    "burst_allowance": "Further connections that the limit leaves for bursts.",
    "throughput_before": "Leases ended per second before the growth that was tried.",
    "throughput_after": "Leases ended per second after it.",
    "elasticity": "Growth of throughput for growth of size, 1 if in proportion.",
    "elasticity_error": "Standard error of the elasticity.",
    "size_before_trial": "The size before it.",
    "ceiling_seconds": "Seconds for which the ceiling still holds.",
    "granted_size": "The size that the server's budget grants.",
    "budget": "The server's connection budget.",
    "nodes_arrivals_share": "Share of the callers that came to nodes, 0..1; estimated.",
    "nodes_mean_active": "The part of mean_active on nodes; estimated.",
    "idle_places": "The part of the size at places without callers: each keeps one connection.",
}
"""Every name in `PoolSizingRecommendation.evidence`, with its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The expected effect of applying the advice.

    Attributes:
        late_share_before: share (0..1) of callers late or without a connection at the current size:
            as measured in the window, or as forecast if it is a growth and the forecast is higher.
        late_share_after: the same at the new size; None when no model can tell.
        connections_before: the current size.
        connections_after: the new size.
    """

    late_share_before: float | None
    late_share_after: float | None
    connections_before: int
    connections_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSizingRecommendation:
    """A recommended size, and the reason.

    Attributes:
        action: up, down, or stay.
        current_size: the size the rule started from: for hysteresis the connections open now,
            for every other rule the max_size in force.
        new_size: the size it recommends; equal to current_size when stable.
        reason_code: for programs.
        reason: one sentence for a person.
        evidence: the numbers it is based on, by the names in `EVIDENCE`.
        confidence: how much evidence there is.
        expected: the expected effect; None when stable.
        wanted: the size that the load needs, before limits and cuts; None if the rule does not
            distinguish it from new_size.
        offered_load: erlangs that its callers offer: connections busy on average if nobody
            waited; None when the rule does not know.
        trial: whether it proposes, or waits for, a trial of growth.
        idle_seconds: seconds after which an idle connection beyond `warm_size` is closed; None: as
            the pool is configured. Both apply even if the size does not change.
        warm_size: connections to keep open although idle.
    """

    action: ScalingAction
    current_size: int
    new_size: int
    reason_code: ReasonCode
    reason: str
    evidence: Mapping[str, float | int | None] = field(default_factory=dict, hash=False)
    confidence: Confidence = Confidence.HIGH
    expected: Effect | None = None
    wanted: int | None = None
    offered_load: float | None = None
    trial: TrialPhase | None = None
    idle_seconds: float | None = None
    warm_size: int = 0

    @property
    def is_estimated(self) -> bool:
        """Whether it is based on reports of nodes too."""
        return _ON_NODES in self.evidence

    @property
    def refuses_growth(self) -> bool:
        """Whether it says that a larger size would not help now."""
        return self.action is not ScalingAction.SCALE_UP and self.reason_code in _REFUSALS

    def contradicts(self, earlier: PoolSizingRecommendation) -> bool:
        """Whether it recommends the opposite of *earlier* advice about the pool."""
        match earlier.action:
            case ScalingAction.SCALE_UP:
                return self.refuses_growth or self.action is ScalingAction.SCALE_DOWN
            case ScalingAction.SCALE_DOWN:
                return self.action is ScalingAction.SCALE_UP
            case ScalingAction.STABLE:
                return False

    def with_estimated(self, arrivals_share: float, mean_active: float) -> PoolSizingRecommendation:
        """The same, with the part of the load on nodes added."""
        reason = f"{self.reason}; leases in the service and on nodes count together"
        if share := round(arrivals_share * 100):
            reason += f", {share} % of the latest callers were on nodes, where waits are estimated"
        return replace(
            self,
            reason=reason,
            evidence={
                **self.evidence,
                "nodes_arrivals_share": arrivals_share,
                _ON_NODES: mean_active,
            },
        )

    def held_at(self, new_size: int) -> PoolSizingRecommendation:
        """The same advice with another size, whose effect no model predicts."""
        expected = self.expected
        if expected is not None:
            expected = replace(expected, late_share_after=None, connections_after=new_size)
        return replace(self, new_size=new_size, expected=expected)
