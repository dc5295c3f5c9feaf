"""Trial: did a growth made while saturated pay?

A saturated pool's throughput X says what one more connection is worth. With X1 at size c1
before a growth and X2 at c2 after it, both saturated,

    e = ln(X2 / X1) / ln(c2 / c1),  se = sqrt(1 / n1 + 1 / n2) / ln(c2 / c1)

is the elasticity of throughput and its standard error, n1 and n2 being the leases that ended
(their counts taken as Poisson). A database with room has e near 1, one past its knee e <= 0.
A growth that did not pay is undone, and its former size stays the ceiling for a while: the
parallel to incremental steps of Heiss and Wagner (VLDB 1991).

Pure: a `Guard` is what is remembered of one pool, and `after` its next value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from math import log, sqrt

from app.domain.advisor.demand_config import TrialConfig
from app.domain.advisor.observation import PoolObservation


class TrialVerdict(Enum):
    """What a trial says."""

    EXTEND = "extend"
    COMMIT = "commit"
    UNDO = "undo"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturatedPeriod:
    """Ticks in a row at one size, all of them saturated."""

    size: int = 0
    ticks: int = 0
    completions: int = 0
    seconds: float = 0.0

    @property
    def throughput(self) -> float:
        """Leases ended a second."""
        return self.completions / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputComparison:
    """Throughput before and after a growth.

    Attributes:
        before, after: leases ended a second.
        elasticity: growth of throughput per growth of size.
        error: its standard error.
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
        """Compare two stretches in which leases ended."""
        growth = log(after.size / before.size)
        return cls(
            before=before.throughput,
            after=after.throughput,
            elasticity=log(after.throughput / before.throughput) / growth,
            standard_error=sqrt(1 / before.completions + 1 / after.completions) / growth,
            size_before=before.size,
            size_after=after.size,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialState:
    """What is remembered of one pool's growths.

    Attributes:
        now: the present stretch.
        before: the stretch before the growth on trial; None when none is.
        undone: why the ceiling holds; None when there is none.
        until: monotonic seconds at which the ceiling ends.
        penalty: seconds for which the next ceiling will hold.
    """

    now: SaturatedPeriod = field(default_factory=SaturatedPeriod)
    before: SaturatedPeriod | None = None
    undone: ThroughputComparison | None = None
    until: float = 0.0
    penalty: float = 0.0

    def ceiling(self, at: float) -> int | None:
        """The size above which growth did not pay a short while ago; None when there is none."""
        return self.undone.size_before if self.undone is not None and at < self.until else None

    def can_compare(self, config: TrialConfig) -> bool:
        """Whether the present stretch would do as the one before a growth."""
        return self.now.ticks >= config.ticks and self.now.completions >= config.completions

    def updated(
        self, config: TrialConfig, seen: PoolObservation
    ) -> tuple[TrialState, TrialVerdict | None]:
        """What to remember once *seen* is known, and the verdict if a growth is on trial."""
        guard = self._grown(config, seen) if seen.max_size != self.now.size else self
        if not is_saturated(config, seen):
            if guard.before is None and not guard.now.ticks:
                return guard, None
            calm = replace(guard, now=SaturatedPeriod(size=seen.max_size), before=None)
            return calm, None if guard.before is None else TrialVerdict.VOID
        now = guard.now
        now = SaturatedPeriod(
            size=now.size,
            ticks=now.ticks + 1,
            completions=now.completions + seen.released,
            seconds=now.seconds + seen.seconds,
        )
        return _judge(config, replace(guard, now=now), seen.at)

    def _grown(self, config: TrialConfig, seen: PoolObservation) -> TrialState:
        """Begin a new stretch; the size changed."""
        is_trial = self.can_compare(config) and seen.max_size >= config.least_growth * self.now.size
        before = self.now if is_trial else None
        return replace(self, now=SaturatedPeriod(size=seen.max_size), before=before)


def _judge(
    config: TrialConfig, guard: TrialState, at: float
) -> tuple[TrialState, TrialVerdict | None]:
    """What the comparison says by now, if a growth is on trial."""
    before, now = guard.before, guard.now
    if before is None:
        return guard, None
    if not guard.can_compare(config):
        is_over = now.ticks >= config.most_ticks
        return (
            (replace(guard, before=None), TrialVerdict.VOID)
            if is_over
            else (guard, TrialVerdict.EXTEND)
        )
    seen = ThroughputComparison.of(before, now)
    doubt = config.certainty * seen.standard_error
    if seen.elasticity - doubt > config.elasticity:
        return replace(guard, before=None, undone=None, penalty=0.0), TrialVerdict.COMMIT
    if seen.elasticity + doubt < config.elasticity or now.ticks >= config.most_ticks:
        return _undo(config, guard, seen, at), TrialVerdict.UNDO
    return guard, TrialVerdict.EXTEND


def _undo(
    config: TrialConfig, guard: TrialState, seen: ThroughputComparison, at: float
) -> TrialState:
    penalty = guard.penalty or config.ceiling_seconds
    return replace(
        guard,
        before=None,
        undone=seen,
        until=at + penalty,
        penalty=min(2 * penalty, config.longest_ceiling_seconds),
    )


def is_saturated(config: TrialConfig, seen: PoolObservation) -> bool:
    """Whether nearly all connections were busy and callers waited, on average."""
    return seen.mean_waiting > 0.0 and seen.mean_active > config.saturation * seen.max_size
