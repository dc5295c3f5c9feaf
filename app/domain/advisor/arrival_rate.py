"""How many callers a second a pool should be ready for.

The rate is smoothed twice. The fast average, kept with its mean absolute deviation as TCP does for
round trips (Jacobson, "Congestion Avoidance and Control", 1988), follows a change at once. The slow
average is more exact while both differ by no more than chance explains: so a steady load gets a
steady size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt

from app.domain.advisor.demand_config import DemandConfig

_SMOOTHING_SECONDS = 5.0
_STEADY_SECONDS = 100.0
_PEAK_SECONDS = 60.0
# Standard deviations of the fast rate that chance may explain.
_CHANCE = 2.5
# Mean absolute deviation of a Poisson count, in standard deviations, with its own noise included.
_SWING_BY_CHANCE = 1.4


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalRate:
    """A pool's arrival rates, in callers per second.

    Attributes:
        fast: average of a few ticks; None before the first observation.
        steady: average of minutes, or of the time since `fast` last changed by more than chance.
        deviation: mean absolute deviation of a tick's rate from `fast` before it.
        noise: standard deviation of a tick's rate if callers arrive independently (Poisson).
        peak: the recent highest rate; it decays to the present one.
    """

    fast: float | None = None
    steady: float = 0.0
    deviation: float = 0.0
    noise: float = 0.0
    peak: float = 0.0

    def updated(self, config: DemandConfig, arrivals: int, seconds: float) -> ArrivalRate:
        """Return the rates after *arrivals* within *seconds*."""
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
        """Callers per second to be ready for: the rate plus a margin for its variation.

        Variation that chance explains needs no margin: the queueing model covers it. And the margin
        never exceeds the recent peak: after a step the deviation is large, but the rate will not
        rise by as much again.
        """
        swings = max(0.0, self.deviation - _SWING_BY_CHANCE * self.noise)
        return self.steady + min(config.rate_margin * swings, max(0.0, self.peak - self.steady))
