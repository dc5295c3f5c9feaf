"""Did a growth during saturation help?

A saturated pool's throughput X shows what one more connection is worth. With X1 at size c1
before a growth and X2 at c2 after it, both saturated,

    e = ln(X2 / X1) / ln(c2 / c1),  se = sqrt(1 / n1 + 1 / n2) / ln(c2 / c1)

is the elasticity of throughput and its standard error, n1 and n2 being the leases that ended (their
counts taken as Poisson). A database with capacity left has e near 1, one past its knee e <= 0. A
growth that did not help is undone, and the size before it becomes the ceiling for a while: the
counterpart of Heiss and Wagner's incremental steps (VLDB 1991).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from math import log, sqrt

from app.domain.advisor.demand_config import TrialConfig
from app.domain.advisor.observation import PoolObservation


class TrialVerdict(Enum):
    """The conclusion of a trial."""

    EXTEND = "extend"
    COMMIT = "commit"
    UNDO = "undo"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturatedPeriod:
    """Consecutive ticks at one size, all of them saturated."""

    size: int = 0
    ticks: int = 0
    completions: int = 0
    seconds: float = 0.0

    @property
    def throughput(self) -> float:
        """Ended leases per second."""
        return self.completions / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputComparison:
    """Throughput before and after a growth.

    Attributes:
        before, after: ended leases per second.
        elasticity: growth of throughput per growth of size.
        standard_error: of the elasticity.
        size_before, size_after: the sizes compared.
    """

    before: float
    after: float
    elasticity: float
    standard_error: float
    size_before: int
    size_after: int

    @classmethod
    def of(cls, before: SaturatedPeriod, after: SaturatedPeriod) -> ThroughputComparison:
        """Compare two periods in which leases ended."""
        growth = log(after.size / before.size)
        error = sqrt(1 / before.completions + 1 / after.completions)
        return cls(
            before=before.throughput,
            after=after.throughput,
            elasticity=log(after.throughput / before.throughput) / growth,
            standard_error=error / abs(growth),
            size_before=before.size,
            size_after=after.size,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialState:
    """The memory of a pool's trials of growth.

    Attributes:
        current: the present period.
        baseline: the period before the growth on trial; None if there is no trial.
        failed: the growth that set the ceiling; None if none did.
        ceiling_until: monotonic seconds at which the ceiling ends.
        next_ceiling_seconds: how long the next ceiling will last; 0: the configured time.
    """

    current: SaturatedPeriod = field(default_factory=SaturatedPeriod)
    baseline: SaturatedPeriod | None = None
    failed: ThroughputComparison | None = None
    ceiling_until: float = 0.0
    next_ceiling_seconds: float = 0.0

    def ceiling(self, at: float) -> int | None:
        """The size above which growth recently did not help; None if there is none."""
        if self.failed is None or at >= self.ceiling_until:
            return None
        return min(self.failed.size_before, self.failed.size_after)

    def can_compare(self, config: TrialConfig) -> bool:
        """Whether the present period is long enough for a comparison."""
        current = self.current
        return current.ticks >= config.ticks and current.completions >= config.completions

    def updated(
        self, config: TrialConfig, seen: PoolObservation, *, is_inflated: bool = False
    ) -> tuple[TrialState, TrialVerdict | None]:
        """Return the state after *seen*, and the verdict if a change of size is on trial.

        A smaller size is on trial only if leases slowed each other down (*is_inflated*).
        """
        state = self
        if seen.max_size != self.current.size:
            state = self._resized(config, seen, is_inflated=is_inflated)
        if not is_saturated(config, seen):
            if state.baseline is None and not state.current.ticks:
                return state, None
            calm = replace(state, current=SaturatedPeriod(size=seen.max_size), baseline=None)
            return calm, None if state.baseline is None else TrialVerdict.VOID
        current = replace(
            state.current,
            ticks=state.current.ticks + 1,
            completions=state.current.completions + seen.released,
            seconds=state.current.seconds + seen.seconds,
        )
        return _judge(config, replace(state, current=current), seen.at)

    def _resized(
        self, config: TrialConfig, seen: PoolObservation, *, is_inflated: bool
    ) -> TrialState:
        before, after = self.current.size, seen.max_size
        is_compared = after >= config.min_growth * before or (
            is_inflated and after * config.min_growth <= before
        )
        baseline = self.current if is_compared and self.can_compare(config) else None
        return replace(self, current=SaturatedPeriod(size=seen.max_size), baseline=baseline)


def _judge(
    config: TrialConfig, state: TrialState, at: float
) -> tuple[TrialState, TrialVerdict | None]:
    baseline, current = state.baseline, state.current
    if baseline is None:
        return state, None
    if not state.can_compare(config):
        if current.ticks >= config.max_ticks:
            return replace(state, baseline=None), TrialVerdict.VOID
        return state, TrialVerdict.EXTEND
    comparison = ThroughputComparison.of(baseline, current)
    # Leases from before the change may have lasted into this period: the next verdict uses a period
    # of its own.
    afresh = SaturatedPeriod(size=current.size)
    margin = config.certainty * comparison.standard_error
    if comparison.elasticity - margin > config.elasticity:
        committed = replace(
            state, baseline=None, current=afresh, failed=None, next_ceiling_seconds=0.0
        )
        return committed, TrialVerdict.COMMIT
    has_failed = comparison.elasticity + margin < config.elasticity
    if has_failed or current.ticks >= config.max_ticks:
        seconds = state.next_ceiling_seconds or config.ceiling_seconds
        undone = replace(
            state,
            baseline=None,
            current=afresh,
            failed=comparison,
            ceiling_until=at + seconds,
            next_ceiling_seconds=min(2 * seconds, config.max_ceiling_seconds),
        )
        return undone, TrialVerdict.UNDO
    return state, TrialVerdict.EXTEND


def is_saturated(config: TrialConfig, seen: PoolObservation) -> bool:
    """Whether, on average, nearly all connections were busy and callers waited."""
    usable = seen.usable(seen.max_size)
    return seen.mean_waiting > 0.0 and seen.mean_active > config.saturation * usable
