"""The demand rule: as many connections as the load needs, and no growth that does not pay.

Feed-forward from arrivals and hold times (`forecast`, `erlang`), feedback from the measured
share of late callers (`lateness`), up at once but bounded, down only to the most that the
window needed (`window`), no growth where it would not help (`gates`) or did not (`trial`).
"""

from __future__ import annotations

from math import ceil
from typing import ClassVar

from app.domain.advisor import messages
from app.domain.advisor.assessment import Assessment, DemandMemory, assess
from app.domain.advisor.demand_config import DemandConfig
from app.domain.advisor.erlang import late_share
from app.domain.advisor.growth_blockers import growth_blocker, is_io_bound
from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.sizing_recommendation import (
    Effect,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
    TrialPhase,
)

# Of the window: a pool with few callers is known to have few when it was watched for so long.
_WATCHED = 0.9


class DemandRule:
    """The default rule."""

    name: ClassVar[str] = "demand"

    __slots__ = ("config",)

    def __init__(self, config: DemandConfig | None = None) -> None:
        """Judge by *config*; its defaults when None."""
        self.config = config or DemandConfig()

    def initial_memory(self) -> DemandMemory:
        """Nothing seen yet."""
        return DemandMemory()

    def advise(
        self, memory: DemandMemory, seen: PoolObservation
    ) -> tuple[PoolSizingRecommendation, DemandMemory]:
        """Judge one observation; first match wins.

        1. The size is above what it may be: shrink to that.
        2. The observation says nothing about the size: keep it.
        3. The last growth did not pay: take it back; or is on trial: wait.
        4. More is desired than there is: grow, unless it would not help.
        5. The load is carried, but a burst would wait: grow by the allowance, likewise.
        6. Otherwise: give back what the window did not need.
        """
        found = assess(self.config, memory, seen)
        return self._judge(found), found.memory

    def _judge(self, found: Assessment) -> PoolSizingRecommendation:
        seen = found.observation
        size, ceiling = seen.max_size, found.memory.trial.ceiling(seen.at)
        if size > found.max_allowed:
            words = messages.above_maximum(found)
            return self._say(found, found.max_allowed, ReasonCode.AT_MAXIMUM, words)
        if found.blocker is not None:
            return self._keep(
                found, found.blocker.reason_code, messages.unreliable(found, found.blocker)
            )
        if ceiling is not None and size > max(ceiling, seen.min_size):
            back = max(ceiling, seen.min_size)
            return self._say(found, back, ReasonCode.GROWTH_UNDONE, messages.undone(found, back))
        if found.memory.trial.before is not None and found.is_strained(self.config):
            words = messages.trial_running(found, self.config.trial)
            return self._keep(found, ReasonCode.TRIAL_RUNNING, words, TrialPhase.RUNNING)
        if found.desired > size and not found.is_idle:
            return self._grow(found, ceiling)
        room = self._room_for_bursts(found, ceiling)
        return self._shrink(found) if room is None else room

    def _grow(self, found: Assessment, ceiling: int | None) -> PoolSizingRecommendation:
        size, is_strained = found.observation.max_size, found.is_strained(self.config)
        if hindrance := self._hindrance(found, ceiling, is_strained=is_strained):
            return self._keep(found, *hindrance)
        # A saturated pool may have met the database's limit: it gets what it needs, no more.
        is_saturated = found.is_saturated(self.config)
        desired = found.desired if is_saturated else found.desired + found.allowance
        new_size = min(desired, self._reach(found), self._most(found, ceiling))
        if found.needed > size:
            code, words = (
                ReasonCode.DEMAND_ABOVE_SIZE,
                messages.demand(self.config, found, new_size),
            )
        else:
            code, words = ReasonCode.LATE_WAITS, messages.late(self.config, found, new_size)
        trial = TrialPhase.PROPOSED if is_strained else None
        return self._say(found, new_size, code, words, trial)

    def _hindrance(
        self, found: Assessment, ceiling: int | None, *, is_strained: bool
    ) -> tuple[ReasonCode, str] | None:
        """Why a pool that wants to grow must not, None when it may."""
        config, size, guard = self.config, found.observation.max_size, found.memory.trial
        hindrance: tuple[ReasonCode, str] | None = None
        if found.events < config.least_events:
            hindrance = ReasonCode.TOO_FEW_EVENTS, messages.too_few(found)
        elif gate := growth_blocker(config, found.observation):
            hindrance = gate.reason_code, messages.no_help(found, gate)
        elif size >= found.max_allowed:
            hindrance = ReasonCode.AT_MAXIMUM, messages.at_maximum(found)
        elif ceiling is not None and size >= ceiling:
            hindrance = ReasonCode.CEILING_AFTER_TRIAL, messages.at_ceiling(found)
        elif is_strained and guard.now.ticks < config.trial.ticks:
            hindrance = ReasonCode.TRIAL_PENDING, messages.trial_pending(found, config.trial)
        return hindrance

    def _room_for_bursts(
        self, found: Assessment, ceiling: int | None
    ) -> PoolSizingRecommendation | None:
        """Restore the allowance when half of it is gone; None when not, or when it may not."""
        size, most = found.observation.max_size, self._most(found, ceiling)
        has_half = size >= min(found.desired + found.allowance // 2, most)
        if has_half or found.is_idle or found.is_saturated(self.config):
            return None
        if self._hindrance(found, ceiling, is_strained=False):
            return None
        new_size = min(found.desired + found.allowance, self._reach(found), most)
        words = messages.room_for_bursts(found, new_size)
        return self._say(found, new_size, ReasonCode.ROOM_FOR_BURSTS, words)

    def _most(self, found: Assessment, ceiling: int | None) -> int:
        """The most the size may become, with the last trial in mind."""
        return found.max_allowed if ceiling is None else min(found.max_allowed, ceiling)

    def _reach(self, found: Assessment) -> int:
        """The most the size may grow to in one tick."""
        config, size = self.config, found.observation.max_size
        if is_io_bound(config, found.observation):
            return size + max(1, ceil(config.late_growth * size))
        return max(int(config.most_growth * size), size + config.least_step)

    def _shrink(self, found: Assessment) -> PoolSizingRecommendation:
        config, seen, window = self.config, found.observation, found.memory.window
        size = seen.max_size
        is_known = window.seconds >= _WATCHED * config.window_seconds
        if found.events < config.least_events and not is_known:
            return self._keep(found, ReasonCode.TOO_FEW_EVENTS, messages.too_few(found))
        target = found.shrink_target
        if target < size and not is_known:
            words = messages.watched(config, found)
            return self._keep(found, ReasonCode.COLLECTING_SAMPLES, words)
        if size - target <= config.dead_band * size:
            needed = max(found.needed, found.floor) + found.allowance
            if size - needed <= config.dead_band * size:
                return self._keep(found, ReasonCode.SIZE_FITS, messages.fits(found))
            return self._keep(found, ReasonCode.RECENT_PEAK, messages.recent_peak(config, found))
        was = window.largest_within_a_minute(seen.at)
        allowed = was - max(config.shrink_step, int(config.shrink_share * was))
        new_size = max(target, allowed)
        if new_size >= size:
            return self._keep(found, ReasonCode.RECENT_PEAK, messages.shrunk_enough(found, was))
        words = messages.shrink(config, found, new_size)
        return self._say(found, new_size, ReasonCode.DEMAND_BELOW_SIZE, words)

    def _keep(
        self,
        found: Assessment,
        code: ReasonCode,
        words: str,
        trial: TrialPhase | None = None,
    ) -> PoolSizingRecommendation:
        return self._say(found, found.observation.max_size, code, words, trial)

    def _say(
        self,
        found: Assessment,
        new_size: int,
        code: ReasonCode,
        words: str,
        trial: TrialPhase | None = None,
    ) -> PoolSizingRecommendation:
        size = found.observation.max_size
        action = ScalingAction.STABLE
        if new_size != size:
            action = ScalingAction.SCALE_UP if new_size > size else ScalingAction.SCALE_DOWN
        return PoolSizingRecommendation(
            action=action,
            current_size=size,
            new_size=new_size,
            reason_code=code,
            reason=words,
            evidence=self._evidence(found),
            confidence=found.confidence(self.config),
            expected=None if action is ScalingAction.STABLE else self._effect(found, new_size),
            wanted=self._wanted(found, new_size),
            trial=trial,
            idle_seconds=found.idle_seconds(self.config),
        )

    def _wanted(self, found: Assessment, new_size: int) -> int:
        """What the load asks for, before steps and the dead band held it back."""
        needed = found.required
        ceiling = found.memory.trial.ceiling(found.observation.at)
        if new_size <= found.observation.max_size:
            return min(needed, max(new_size, found.observation.min_size), found.max_allowed)
        return min(
            needed, found.max_allowed if ceiling is None else min(found.max_allowed, ceiling)
        )

    def _effect(self, found: Assessment, new_size: int) -> Effect:
        patience, size = self.config.patience_seconds, found.observation.max_size
        expected = late_share(found.load, size, patience)
        if new_size < size:
            expected = found.lateness.share
        return Effect(
            late_share_before=max(expected, found.lateness.share),
            late_share_after=late_share(found.load, new_size, patience),
            connections_before=size,
            connections_after=new_size,
        )

    def _evidence(self, found: Assessment) -> dict[str, float | int | None]:
        forecast, guard = found.memory.forecast, found.memory.trial
        hold, base = forecast.hold, forecast.base_hold
        evidence: dict[str, float | int | None] = {
            "arrivals_per_second": forecast.arrivals.expected(self.config),
            "hold_ms": None if hold is None else hold * 1000.0,
            "base_hold_ms": None if base is None else base * 1000.0,
            "hold_cv2": forecast.cv2,
            "offered_load": found.load.erlangs,
            "mean_active": found.observation.mean_active,
            "mean_waiting": found.observation.mean_waiting,
            "late_share": found.lateness.share,
            "late_share_bound": found.lateness.bound,
            "events": found.events,
            "needed_size": found.needed if found.needed <= found.max_allowed else None,
            "window_peak_size": min(found.memory.window.needed, found.max_allowed),
            "burst_allowance": found.allowance,
        }
        if guard.undone is not None and found.observation.at < guard.until:
            evidence |= {
                "throughput_before": guard.undone.before,
                "throughput_after": guard.undone.after,
                "elasticity": guard.undone.elasticity,
                "elasticity_error": guard.undone.standard_error,
                "size_before_trial": guard.undone.size_before,
                "ceiling_seconds": guard.until - found.observation.at,
            }
        return evidence
