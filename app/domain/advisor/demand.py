"""The demand rule: as many connections as the load needs, and no growth that does not help.

Feed-forward from arrivals and hold times (`forecast`, `erlang`); feedback from the measured
share of late callers (`lateness`); up at once but bounded, down only to the most that the
window needed (`window`); no growth where it would not help (`growth_blockers`) or did not
(`trial`).
"""

from math import ceil
from typing import ClassVar

from app.domain.advisor import messages
from app.domain.advisor.assessment import Assessment, DemandMemory, assess
from app.domain.advisor.demand_config import DemandConfig
from app.domain.advisor.growth_blockers import growth_blocker, is_io_bound
from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.sizing_recommendation import (
    Confidence,
    Effect,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
    TrialPhase,
)

# A fraction of the window. Silence this long means few callers, not a pool just opened.
_OBSERVED = 0.9


class DemandRule:
    """The default rule."""

    name: ClassVar[str] = "demand"

    __slots__ = ("config",)

    def __init__(self, config: DemandConfig | None = None) -> None:
        self.config = config or DemandConfig()

    def initial_memory(self) -> DemandMemory:
        return DemandMemory()

    def advise(
        self, memory: DemandMemory, seen: PoolObservation
    ) -> tuple[PoolSizingRecommendation, DemandMemory]:
        """Recommend a size; first match wins.

        1. The size exceeds the allowed maximum: shrink to it.
        2. The observation says nothing about the size: keep it.
        3. The last growth did not help: undo it. It is still on trial: wait.
        4. Leases take so much longer than under light load that fewer connections may complete more
           of them: shrink on trial.
        5. More connections are needed: grow, unless that would not help.
        6. The size carries the load, but a burst would wait: grow by the allowance, unless that
           would not help.
        7. Otherwise: shrink to what the window needed.
        """
        found = assess(self.config, memory, seen)
        advice = self._limit(found) or self._trial(found) or self._follow(found)
        return advice, found.memory

    def _limit(self, found: Assessment) -> PoolSizingRecommendation | None:
        """Cases 1 and 2, and the growth to undo."""
        seen, size, ceiling = found.observation, found.observation.max_size, found.ceiling
        if size > found.max_allowed:
            reason = messages.above_maximum(found)
            return self._resize(found, found.max_allowed, ReasonCode.AT_MAXIMUM, reason)
        if found.blocker is not None:
            reason = messages.unreliable_observation(found, found.blocker)
            return self._keep(found, found.blocker.reason_code, reason)
        if ceiling is not None and size > max(ceiling, seen.min_size):
            back = max(ceiling, seen.min_size)
            reason = messages.growth_undone(found, back)
            return self._resize(found, back, ReasonCode.GROWTH_UNDONE, reason)
        return None

    def _trial(self, found: Assessment) -> PoolSizingRecommendation | None:
        """The rest of case 3, and case 4."""
        if found.memory.trial.baseline is not None and found.is_degraded:
            reason = messages.trial_running(found, self.config.trial)
            return self._keep(found, ReasonCode.TRIAL_RUNNING, reason, TrialPhase.RUNNING)
        if (fewer := found.size_at_knee()) is not None:
            reason = messages.past_knee(found, fewer)
            return self._resize(found, fewer, ReasonCode.PAST_KNEE, reason, TrialPhase.PROPOSED)
        return None

    def _follow(self, found: Assessment) -> PoolSizingRecommendation:
        """Cases 5 to 7."""
        if found.desired > found.observation.max_size and not found.is_idle:
            return self._grow(found)
        return self._room_for_bursts(found) or self._shrink(found)

    def _grow(self, found: Assessment) -> PoolSizingRecommendation:
        size, is_degraded = found.observation.max_size, found.is_degraded
        if obstacle := self._obstacle(found, is_degraded=is_degraded):
            return self._keep(found, *obstacle)
        # A pool that is saturated, or whose leases slow each other down, may have reached the
        # database's limit: it gets what it needs and no more. So does a pool whose callers are on
        # time.
        has_room = found.is_late and not (found.is_saturated or found.is_inflated)
        desired = found.desired + (found.allowance if has_room else 0)
        new_size = min(desired, self._step_limit(found), found.growth_limit)
        if found.needed > size:
            code = ReasonCode.DEMAND_ABOVE_SIZE
            reason = messages.demand_above_size(self.config, found, new_size)
        else:
            code = ReasonCode.LATE_WAITS
            reason = messages.late_waits(self.config, found, new_size)
        trial = TrialPhase.PROPOSED if is_degraded else None
        return self._resize(found, new_size, code, reason, trial)

    def _obstacle(self, found: Assessment, *, is_degraded: bool) -> tuple[ReasonCode, str] | None:
        """Say why a pool that wants to grow must not; None if it may."""
        config, size, trial = self.config, found.observation.max_size, found.memory.trial
        obstacle: tuple[ReasonCode, str] | None = None
        if found.events < config.min_events:
            obstacle = ReasonCode.TOO_FEW_EVENTS, messages.too_few_events(found)
        elif blocker := growth_blocker(config, found.observation):
            obstacle = blocker.reason_code, messages.growth_blocked(found, blocker)
        elif size >= found.max_allowed:
            obstacle = ReasonCode.AT_MAXIMUM, messages.at_maximum(found)
        elif size >= found.growth_limit:
            obstacle = ReasonCode.CEILING_AFTER_TRIAL, messages.ceiling_after_trial(found)
        elif is_degraded and trial.current.ticks < config.trial.ticks:
            obstacle = ReasonCode.TRIAL_PENDING, messages.trial_pending(found, config.trial)
        return obstacle

    def _room_for_bursts(self, found: Assessment) -> PoolSizingRecommendation | None:
        """Restore the allowance once half of it is used up; None otherwise, or if it may not grow.

        It doubles the size at each interval, and stops if leases become slower.
        """
        half = min(found.desired + found.allowance // 2, found.growth_limit)
        has_half = found.observation.max_size >= half
        # If callers are late now, the pool first gets what it needs: this burst may have reached
        # the database's limit.
        may_slow = found.is_late or found.is_inflated or found.is_saturated
        if has_half or found.is_idle or may_slow:
            return None
        if self._obstacle(found, is_degraded=False):
            return None
        desired = found.desired + found.allowance
        new_size = min(desired, self._step_limit(found), found.growth_limit)
        reason = messages.room_for_bursts(found, new_size)
        return self._resize(found, new_size, ReasonCode.ROOM_FOR_BURSTS, reason)

    def _step_limit(self, found: Assessment) -> int:
        """The largest size after one tick: what is needed, at least twice the size.

        Only a quarter more if the database is already slow, because its limit may be near.
        """
        config, size = self.config, found.observation.max_size
        if is_io_bound(config, found.observation) or found.is_inflated:
            return size + max(1, ceil(config.late_growth * size))
        return max(int(config.max_growth * size), size + 1, found.desired)

    def _shrink(self, found: Assessment) -> PoolSizingRecommendation:
        config, seen, window = self.config, found.observation, found.memory.window
        size, target = seen.max_size, found.shrink_target
        is_known = window.seconds >= _OBSERVED * config.window_seconds
        if found.events < config.min_events and not is_known:
            return self._keep(found, ReasonCode.TOO_FEW_EVENTS, messages.too_few_events(found))
        if target < size and not is_known:
            reason = messages.collecting_samples(config, found)
            return self._keep(found, ReasonCode.COLLECTING_SAMPLES, reason)
        if size - target <= config.dead_band * size:
            needed = max(found.needed, found.floor) + found.allowance
            if size - needed <= config.dead_band * size:
                return self._keep(found, ReasonCode.SIZE_FITS, messages.size_fits(found))
            return self._keep(found, ReasonCode.RECENT_PEAK, messages.recent_peak(config, found))
        was = window.largest_within_a_minute(seen.at)
        allowed = was - max(config.shrink_step, int(config.shrink_share * was))
        new_size = max(target, allowed)
        held: str | None = None
        if seen.metrics.waiting_requests:
            held = messages.callers_wait(found)
        elif new_size >= size:
            held = messages.shrunk_recently(found, was)
        if held is not None:
            return self._keep(found, ReasonCode.RECENT_PEAK, held)
        reason = messages.shrink(config, found, new_size)
        return self._resize(found, new_size, ReasonCode.DEMAND_BELOW_SIZE, reason)

    def _keep(
        self, found: Assessment, code: ReasonCode, reason: str, trial: TrialPhase | None = None
    ) -> PoolSizingRecommendation:
        return self._resize(found, found.observation.max_size, code, reason, trial)

    def _resize(
        self,
        found: Assessment,
        new_size: int,
        code: ReasonCode,
        reason: str,
        trial: TrialPhase | None = None,
    ) -> PoolSizingRecommendation:
        size = found.observation.max_size
        action = ScalingAction.between(size, new_size)
        if code is not ReasonCode.LATE_WAITS:
            reason = messages.with_late_callers(self.config, found, reason)
        return PoolSizingRecommendation(
            action=action,
            current_size=size,
            new_size=new_size,
            reason_code=code,
            reason=reason,
            evidence=self._evidence(found),
            confidence=self._confidence(found, code),
            expected=None if new_size == size else self._effect(found, new_size),
            wanted=self._wanted(found, new_size),
            offered_load=found.memory.forecast.offered_load(self.config),
            trial=trial,
            idle_seconds=None if found.blocker else self.config.idle_seconds,
            warm_size=found.warm_size,
        )

    @staticmethod
    def _confidence(found: Assessment, code: ReasonCode) -> Confidence:
        """By the number of callers seen; at most medium for `past_knee`, which is not tried yet."""
        if code is ReasonCode.PAST_KNEE:
            return min(found.confidence, Confidence.MEDIUM, key=list(Confidence).index)
        return found.confidence

    def _wanted(self, found: Assessment, new_size: int) -> int:
        """The size that the load needs, before step limits and the dead band."""
        if new_size <= found.observation.max_size:
            limit = max(new_size, found.observation.min_size)
            return min(found.required, limit, found.max_allowed)
        return min(found.required, found.growth_limit)

    def _effect(self, found: Assessment, new_size: int) -> Effect:
        size = found.observation.max_size
        measured = max(found.lateness.share, found.memory.window.lateness.share)
        before, after = measured, found.late_share(new_size)
        if new_size > size:
            before = max(before, found.late_share(size))
        else:
            # Whatever makes callers late now, such as max_leases, still does with fewer
            # connections.
            after = max(after, before)
        return Effect(
            late_share_before=before,
            late_share_after=after,
            connections_before=size,
            connections_after=new_size,
        )

    def _evidence(self, found: Assessment) -> dict[str, float | int | None]:
        forecast, trial, at = found.memory.forecast, found.memory.trial, found.observation.at
        lateness, base = found.memory.window.lateness, forecast.base_hold
        evidence: dict[str, float | int | None] = {
            "arrivals_per_second": forecast.arrivals.expected(self.config),
            "hold_ms": None if forecast.hold is None else found.load.hold * 1000.0,
            "base_hold_ms": None if base is None else base * 1000.0,
            "hold_cv2": found.load.cv2,
            "offered_load": found.load.erlangs,
            "mean_active": found.observation.mean_active,
            "mean_waiting": found.observation.mean_waiting,
            "late_share": lateness.share,
            "late_share_bound": lateness.bound,
            "events": found.events,
            "needed_size": found.needed if found.needed <= found.max_allowed else None,
            "window_peak_size": min(found.memory.window.needed, found.max_allowed),
            "burst_allowance": found.allowance,
        }
        if found.observation.idle_places:
            evidence["idle_places"] = found.observation.idle_places
        if trial.failed is not None and at < trial.ceiling_until:
            evidence |= {
                "throughput_before": trial.failed.before,
                "throughput_after": trial.failed.after,
                "elasticity": trial.failed.elasticity,
                "elasticity_error": trial.failed.standard_error,
                "size_before_trial": trial.failed.size_before,
                "ceiling_seconds": trial.ceiling_until - at,
            }
        return evidence
