"""The load that a pool will have next, estimated from its load so far.

Arrivals come from `arrival_rate`. Two mean holds are remembered: the present one, and the one while
the pool was less than half busy, because a database that runs more statements at once takes longer
for each. Rate times hold is limited by what callers really occupied (`occupancy`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import exp

from app.domain.advisor.arrival_rate import ArrivalRate
from app.domain.advisor.demand_config import DemandConfig
from app.domain.advisor.erlang import OfferedLoad
from app.domain.advisor.hold_moments import HoldMoments
from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.occupancy import Occupancy

_LIGHT = 0.5
# The largest weight of the newest mean hold in the mean under light load, and the number of leases
# for that weight.
_BASE_SMOOTHING = 0.1
_MANY_FOR_BASE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The arrivals and holds of one pool, as remembered.

    Attributes:
        arrivals: arrival rates, callers per second.
        holds: holds of ended leases, over minutes.
        occupancy: the occupancy by the latest callers.
        peak_hold: mean seconds that a caller occupied a connection when `arrivals` were at their
            peak; None when unknown.
        base_hold: mean seconds of a lease under light load; None before any lease ended.
        base_leases: number of leases in that mean.
    """

    arrivals: ArrivalRate = field(default_factory=ArrivalRate)
    holds: HoldMoments = field(default_factory=HoldMoments)
    occupancy: Occupancy = field(default_factory=Occupancy)
    peak_hold: float | None = None
    base_hold: float | None = None
    base_leases: float = 0.0

    @property
    def hold(self) -> float | None:
        """Mean seconds of a lease; None until one has ended."""
        return self.holds.mean

    def updated(self, config: DemandConfig, seen: PoolObservation) -> Forecast:
        """The forecast after *seen*."""
        ended = HoldMoments.of(seen.hold)
        holds = self.holds.updated(exp(-seen.seconds / config.hold_seconds), ended)
        arrivals = self.arrivals.updated(config, seen.arrivals, seen.seconds)
        occupancy = self.occupancy.updated(seen, ended, holds.mean)
        base_hold, base_leases = self._base_after(seen, ended, holds)
        is_peak = seen.arrivals >= arrivals.peak * seen.seconds
        return Forecast(
            arrivals=arrivals,
            holds=holds,
            occupancy=occupancy,
            peak_hold=occupancy.hold if is_peak else self.peak_hold,
            base_hold=base_hold,
            base_leases=base_leases,
        )

    def rebased(self) -> Forecast:
        """The same with the present hold as the base, because more connections did help."""
        return replace(self, base_hold=self.hold, base_leases=self.holds.count)

    def load(self, config: DemandConfig) -> OfferedLoad:
        """The load to carry: the rate with its margin, times the hold that applies."""
        rate = self.arrivals.expected(config)
        erlangs, holds = self._erlangs(config, rate)
        hold = erlangs / rate if rate else self._uninflated_hold(config)
        return OfferedLoad(erlangs=erlangs, hold=hold, cv2=holds.cv2 if hold else 1.0)

    def offered_load(self, config: DemandConfig) -> float:
        """The load that callers offer now, in erlangs, without the margin."""
        return self._erlangs(config, self.arrivals.steady)[0]

    def is_inflated(self, config: DemandConfig) -> bool:
        """Whether leases last so much longer than under light load that the pool may cause it."""
        hold, base = self.hold, self.base_hold
        return hold is not None and base is not None and hold > config.hold_inflation * base > 0.0

    def _erlangs(self, config: DemandConfig, rate: float) -> tuple[float, HoldMoments]:
        """Return the load offered at *rate*, in erlangs, and the holds that it was computed from.

        It is limited by what the latest callers occupied. Callers of the recent peak that no longer
        come count with what callers occupied at the peak.
        """
        hold = self._uninflated_hold(config)
        erlangs, most = rate * hold, self.occupancy.most
        if most is not None:
            peak_hold = hold if self.peak_hold is None else self.peak_hold
            most += max(0.0, rate - self.occupancy.rate) * peak_hold
            if most < erlangs:
                return most, self.occupancy.holds
        return erlangs, self.holds

    def _uninflated_hold(self, config: DemandConfig) -> float:
        hold, base = self.hold or 0.0, self.base_hold or 0.0
        return min(hold, config.hold_inflation * base) if base > 0.0 else hold

    def _base_after(
        self, seen: PoolObservation, ended: HoldMoments, holds: HoldMoments
    ) -> tuple[float | None, float]:
        """The mean hold under light load, and the number of leases in that mean."""
        base, hold = self.base_hold, holds.mean
        if base is None or hold is None:
            return hold, holds.count
        if ended.mean is not None and seen.mean_active < _LIGHT * seen.max_size:
            leases = self.base_leases + ended.count
            weight = min(_BASE_SMOOTHING, ended.count / _MANY_FOR_BASE)
            if self.base_leases < _MANY_FOR_BASE:
                # The first few leases have equal weight: the very first may have been unusual.
                weight = ended.count / leases
            return base + weight * (ended.mean - base), leases
        # Load only makes holds longer: a shorter hold was not inflated.
        return (hold, holds.count) if hold < base else (base, self.base_leases)
