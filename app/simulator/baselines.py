"""Rules for comparison: fixed sizes, utilization, and growth whenever a caller waits.

The service offers none of them.
"""

from dataclasses import dataclass
from math import ceil

from app.domain.advisor import PoolObservation, PoolSizingRecommendation, ReasonCode, ScalingAction

# The share (0..1) of the size that is leased on average.
_TARGET = 0.7
_UP_WINDOW = 15.0
_DOWN_WINDOW = 300.0
_TOLERANCE = 0.1
_LEAST_STEP = 4

_CODES = {
    ScalingAction.STABLE: ReasonCode.SIZE_FITS,
    ScalingAction.SCALE_UP: ReasonCode.DEMAND_ABOVE_SIZE,
    ScalingAction.SCALE_DOWN: ReasonCode.DEMAND_BELOW_SIZE,
}
Points = tuple[tuple[float, int], ...]
"""Sizes with their times, oldest first."""


class IgnoresHistograms:
    """A rule that reads no histograms, so that the simulation need not fill them."""


class StaticRule(IgnoresHistograms):
    """Keeps its size."""

    name = "static"

    def initial_memory(self) -> None: ...

    def advise(self, memory: None, seen: PoolObservation) -> tuple[PoolSizingRecommendation, None]:
        return clamped_advice(seen, seen.max_size, "The size is fixed."), memory


@dataclass(frozen=True, slots=True, kw_only=True)
class UtilizationMemory:
    """The memory of the utilization rule.

    Attributes:
        wanted: the wanted size at each tick of the last 300 seconds.
        sizes: the size at each tick of the last 15 seconds.
    """

    wanted: Points = ()
    sizes: Points = ()


class UtilizationRule(IgnoresHistograms):
    """Works like the Kubernetes horizontal autoscaler: ceil(size x utilization / target).

    It has the same defaults: no change within 10 % of the target; growth at once, but within 15
    seconds to at most twice the size or four more; shrinking to the largest size wanted within 300
    seconds. But it decides at every tick, not only every 15 seconds.
    """

    name = "hpa"

    def initial_memory(self) -> UtilizationMemory:
        return UtilizationMemory()

    def advise(
        self, memory: UtilizationMemory, seen: PoolObservation
    ) -> tuple[PoolSizingRecommendation, UtilizationMemory]:
        size = seen.max_size
        ratio = seen.mean_active / size / _TARGET
        wanted = size if abs(ratio - 1) <= _TOLERANCE else ceil(size * ratio)
        recent = UtilizationMemory(
            wanted=(*_since(memory.wanted, seen.at - _DOWN_WINDOW), (seen.at, wanted)),
            sizes=(*_since(memory.sizes, seen.at - _UP_WINDOW), (seen.at, size)),
        )
        if wanted > size:
            before = min(past for _, past in recent.sizes)
            new_size = max(size, min(wanted, max(2 * before, before + _LEAST_STEP)))
        else:
            new_size = min(size, max(past for _, past in recent.wanted))
        reason = f"{seen.mean_active / size:.0%} of {size} leased, target {_TARGET:.0%}."
        return clamped_advice(seen, new_size, reason), recent


class IncrementRule:
    """Works like FlexyPool's increment strategy: one more for each slow or timed out acquire.

    It never shrinks. The library grows at once; here it grows at the next tick.
    """

    name = "increment"

    def __init__(self, slow: float) -> None:
        """Grow for every wait over *slow* seconds."""
        self._slow = slow

    def initial_memory(self) -> None: ...

    def advise(self, memory: None, seen: PoolObservation) -> tuple[PoolSizingRecommendation, None]:
        """Grow by the number of slow and failed acquires."""
        slow = seen.timeouts + sum(
            count for bucket, count in seen.wait.counts.items() if 2 ** (bucket / 8) > self._slow
        )
        return clamped_advice(seen, seen.max_size + slow, f"{slow} acquires were slow."), memory


def clamped_advice(seen: PoolObservation, size: int, reason: str) -> PoolSizingRecommendation:
    """Recommend *size*, limited to at least min_size and 1, and at most the ceiling."""
    new_size = max(min(size, seen.max_allowed), seen.min_size, 1)
    action = ScalingAction.between(seen.max_size, new_size)
    return PoolSizingRecommendation(
        action=action,
        current_size=seen.max_size,
        new_size=new_size,
        reason_code=_CODES[action],
        reason=reason,
    )


def _since(points: Points, moment: float) -> Points:
    return tuple(point for point in points if point[0] > moment)
