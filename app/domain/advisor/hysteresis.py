"""The hysteresis rule: act when several samples in a row exceed a threshold.

The rule and its defaults are the published ones of FraiseQL's pool pressure monitor, with one
difference: it starts from the pool's actual size, never from its own last advice. So a pool that
nobody resizes gets the same advice again, not ever larger sizes.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from app.domain.advisor.config_value import check_ranges, count, ranged, share
from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.sizing_recommendation import (
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
)
from app.domain.errors import InvalidInput
from app.domain.pool import MAX_POOL_SIZE, PoolMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPressureMonitorConfig:
    """The rule's configuration; names and defaults are the published ones.

    Raises:
        InvalidInput: for values with which the rule could not work.
    """

    enabled: bool = False
    min_pool_size: int = count(5, "Never recommend fewer connections.", MAX_POOL_SIZE)
    max_pool_size: int = count(50, "Never recommend more connections.", MAX_POOL_SIZE)
    target_queue_depth: int = ranged(
        3, "Callers that may wait before the pool counts as too small.", 0, 1_000_000
    )
    scale_up_step: int = count(5, "Connections added at a time.", MAX_POOL_SIZE)
    scale_down_step: int = count(2, "Connections removed at a time.", MAX_POOL_SIZE)
    scale_down_idle_ratio: float = share(
        0.5, "Share of idle connections above which it is too large."
    )
    tuning_interval_ms: int = ranged(30_000, "Milliseconds between two ticks.", 100, 86_400_000)
    samples_before_action: int = count(3, "Samples in a row that must agree.", 1000)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.min_pool_size >= self.max_pool_size:
            raise InvalidInput("min_pool_size must be less than max_pool_size.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaks:
    """For each condition, the number of samples in a row for which it has held."""

    high_queue: int = 0
    high_idle: int = 0


def advise_by_thresholds(
    config: PoolPressureMonitorConfig, streaks: Streaks, metrics: PoolMetrics
) -> tuple[PoolSizingRecommendation, Streaks]:
    """Recommend a size for this sample, and return the memory for the next one.

    Three cases, first match wins; thresholds are strict (equal is still fine):

    1. More callers wait than the target: after enough samples grow by one step.
    2. Nobody waits and too large a share is idle: after enough samples shrink by one step.
    3. Neither: keep the size, and count from zero again.
    """
    current = metrics.total_connections or config.min_pool_size
    if metrics.waiting_requests > config.target_queue_depth:
        return _queue_above_target(
            config, Streaks(high_queue=streaks.high_queue + 1), metrics, current
        )
    if _is_mostly_idle(config, metrics, current):
        return _idle_above_ratio(config, Streaks(high_idle=streaks.high_idle + 1), metrics, current)
    reason = (
        f"{metrics.waiting_requests} waiting (target {config.target_queue_depth}), "
        f"{metrics.idle_connections} of {metrics.total_connections} idle: nothing to change"
    )
    return _advice(current, current, ReasonCode.WITHIN_THRESHOLDS, reason), Streaks()


def _is_mostly_idle(config: PoolPressureMonitorConfig, metrics: PoolMetrics, current: int) -> bool:
    if current <= config.min_pool_size or not metrics.total_connections:
        return False
    ratio = metrics.idle_connections / metrics.total_connections
    return ratio > config.scale_down_idle_ratio and metrics.waiting_requests == 0


def _queue_above_target(
    config: PoolPressureMonitorConfig, streaks: Streaks, metrics: PoolMetrics, current: int
) -> tuple[PoolSizingRecommendation, Streaks]:
    queue = f"{metrics.waiting_requests} requests waiting (threshold {config.target_queue_depth})"
    if streaks.high_queue < config.samples_before_action:
        reason = f"{queue}, {streaks.high_queue} of {config.samples_before_action} samples"
        return _advice(current, current, ReasonCode.COLLECTING_SAMPLES, reason), streaks
    desired = min(current + config.scale_up_step, config.max_pool_size)
    if desired <= current:
        reason = f"{queue}, but the pool is at its maximum of {config.max_pool_size}"
        return _advice(current, current, ReasonCode.AT_MAXIMUM, reason), Streaks()
    reason = f"{queue}; grown by {desired - current}"
    return _advice(current, desired, ReasonCode.QUEUE_ABOVE_TARGET, reason), Streaks()


def _idle_above_ratio(
    config: PoolPressureMonitorConfig, streaks: Streaks, metrics: PoolMetrics, current: int
) -> tuple[PoolSizingRecommendation, Streaks]:
    ratio = metrics.idle_connections / metrics.total_connections
    idle = f"idle ratio {ratio:.0%} > {config.scale_down_idle_ratio:.0%} threshold"
    if streaks.high_idle < config.samples_before_action:
        reason = f"{idle}, {streaks.high_idle} of {config.samples_before_action} samples"
        return _advice(current, current, ReasonCode.COLLECTING_SAMPLES, reason), streaks
    desired = max(current - config.scale_down_step, config.min_pool_size)
    reason = f"{idle}; shrunk by {current - desired}"
    shrink = _advice(current, desired, ReasonCode.IDLE_ABOVE_RATIO, reason)
    return shrink, replace(streaks, high_idle=0)


def _advice(current: int, new_size: int, code: ReasonCode, reason: str) -> PoolSizingRecommendation:
    return PoolSizingRecommendation(
        action=ScalingAction.between(current, new_size),
        current_size=current,
        new_size=new_size,
        reason_code=code,
        reason=reason,
    )


class HysteresisRule:
    """The published rule: it sees only the gauges at the end of each interval."""

    name: ClassVar[str] = "hysteresis"

    __slots__ = ("config",)

    def __init__(self, config: PoolPressureMonitorConfig) -> None:
        self.config = config

    def initial_memory(self) -> Streaks:
        return Streaks()

    def advise(
        self, memory: Streaks, seen: PoolObservation
    ) -> tuple[PoolSizingRecommendation, Streaks]:
        return advise_by_thresholds(self.config, memory, seen.metrics)
