"""How many callers a second a pool should be ready for.

Smoothed twice. Fast, with the mean absolute deviation beside it, as TCP does for round
trips (Jacobson, "Congestion Avoidance and Control", 1988): that follows a change at once.
And slowly: as long as both agree within what chance explains, the slow one is nearer to the
truth, and a steady load gets a steady size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt

from app.domain.advisor.demand_config import DemandConfig

_SMOOTHING_SECONDS = 5.0
_STEADY_SECONDS = 100.0
_PEAK_SECONDS = 60.0
# Standard deviations, of the fast rate, that chance may explain.
_CHANCE = 2.5
# Mean absolute deviation of a Poisson count in its standard deviations, and as much of its
# own noise as chance may explain.
_SWING_BY_CHANCE = 1.4


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalRate:
    """What is remembered of a pool's arrivals, all in callers a second.

    Attributes:
        fast: smoothed over a few ticks; None before the first observation.
        steady: smoothed over minutes, or `fast` since it last changed by more than chance.
        deviation: mean absolute deviation of a tick's rate from `fast` before it.
        noise: standard deviation of a tick's rate if callers came independently (Poisson).
        peak: the highest rate lately, decaying to the present one.
    """

    fast: float | None = None
    steady: float = 0.0
    deviation: float = 0.0
    noise: float = 0.0
    peak: float = 0.0

    def updated(self, config: DemandConfig, arrivals: int, seconds: float) -> ArrivalRate:
        """The rate after *arrivals* within *seconds*."""
        rate = arrivals / seconds
        if self.fast is None:
            noise = sqrt(max(arrivals, 1)) / seconds
            return ArrivalRate(
                fast=rate, steady=rate, deviation=_SWING_BY_CHANCE * noise, noise=noise, peak=rate
            )
        kept = (1.0 - config.rate_smoothing) ** (seconds / _SMOOTHING_SECONDS)
        fast = rate + kept * (self.fast - rate)
        steady = rate + exp(-seconds / _STEADY_SECONDS) * (self.steady - rate)
        noise = sqrt(max(steady * seconds, 1.0)) / seconds
        # Smoothing leaves sqrt((1 - kept) / (1 + kept)) of a tick's noise in the fast rate.
        if abs(fast - steady) > _CHANCE * noise * sqrt((1.0 - kept) / (1.0 + kept)):
            steady = fast
        return ArrivalRate(
            fast=fast,
            steady=steady,
            deviation=abs(rate - self.fast) + kept * (self.deviation - abs(rate - self.fast)),
            noise=noise,
            peak=max(rate, rate + exp(-seconds / _PEAK_SECONDS) * (self.peak - rate)),
        )

    def expected(self, config: DemandConfig) -> float:
        """Callers a second to be ready for: the rate, and a margin for its swings.

        Swings that chance explains need none: the queueing model knows of chance. And the
        margin never reaches beyond what came lately: after a step the deviation is large, but
        the rate does not rise by as much again.
        """
        swings = max(0.0, self.deviation - _SWING_BY_CHANCE * self.noise)
        return self.steady + min(config.rate_margin * swings, max(0.0, self.peak - self.steady))
