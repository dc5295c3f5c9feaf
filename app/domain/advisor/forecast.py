"""What will be asked of a pool next, from what was asked of it so far.

Arrivals come from `arrival_rate`. The mean hold is remembered twice: as it is, and as it was
while the pool was less than half busy, because a database that runs more statements at a time
takes longer for each. Rate times hold counts no more than callers occupied (`occupancy`).
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
# Most weight of the newest mean hold in the one under light load, and the leases it takes.
_BASE_SMOOTHING = 0.1
_MANY_FOR_BASE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is remembered of one pool's arrivals and holds.

    Attributes:
        arrivals: callers a second.
        holds: of leases that ended, over minutes.
        occupancy: of the latest callers.
        peak_hold: mean seconds that a caller occupied when `arrivals` were at their peak; None
            when that is not known.
        base_hold: mean seconds of a lease under light load; None before any lease ended.
    """

    arrivals: ArrivalRate = field(default_factory=ArrivalRate)
    holds: HoldMoments = field(default_factory=HoldMoments)
    occupancy: Occupancy = field(default_factory=Occupancy)
    peak_hold: float | None = None
    base_hold: float | None = None

    @property
    def hold(self) -> float | None:
        """Mean seconds of a lease; None before any ended."""
        return self.holds.mean

    def updated(self, config: DemandConfig, seen: PoolObservation) -> Forecast:
        """The forecast after *seen*."""
        ended = HoldMoments.of(seen.hold)
        holds = self.holds.updated(exp(-seen.seconds / config.hold_seconds), ended)
        arrivals = self.arrivals.updated(config, seen.arrivals, seen.seconds)
        occupancy = self.occupancy.updated(seen, ended, holds.mean)
        is_peak = seen.arrivals >= arrivals.peak * seen.seconds
        return Forecast(
            arrivals=arrivals,
            holds=holds,
            occupancy=occupancy,
            peak_hold=occupancy.hold if is_peak else self.peak_hold,
            base_hold=self._base_after(seen, ended, holds.mean),
        )

    def rebased(self) -> Forecast:
        """The same, with the present hold as the base: more connections did pay."""
        return replace(self, base_hold=self.hold)

    def load(self, config: DemandConfig) -> OfferedLoad:
        """What the pool has to carry: the rate with its margin, times the hold that counts."""
        rate = self.arrivals.expected(config)
        erlangs, holds = self._erlangs(config, rate)
        hold = erlangs / rate if rate else self._uninflated_hold(config)
        return OfferedLoad(erlangs=erlangs, hold=hold, cv2=holds.cv2 if hold else 1.0)

    def offered_load(self, config: DemandConfig) -> float:
        """What callers offer now, erlangs: the same without the margin."""
        return self._erlangs(config, self.arrivals.steady)[0]

    def is_inflated(self, config: DemandConfig) -> bool:
        """Whether leases last so much longer than under light load that ours may be why."""
        hold, base = self.hold, self.base_hold
        return hold is not None and base is not None and hold > config.hold_inflation * base > 0.0

    def _erlangs(self, config: DemandConfig, rate: float) -> tuple[float, HoldMoments]:
        """What callers at that *rate* offer, and the leases whose holds it is of.

        No more than the latest callers occupied; who came lately and does not now, as those did
        who came when they were most.
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
        self, seen: PoolObservation, ended: HoldMoments, hold: float | None
    ) -> float | None:
        base = self.base_hold
        if base is None or hold is None:
            return hold
        if ended.mean is not None and seen.mean_active < _LIGHT * seen.max_size:
            return base + min(_BASE_SMOOTHING, ended.count / _MANY_FOR_BASE) * (ended.mean - base)
        # Load only ever makes it longer: what is shorter was not inflated.
        return min(base, hold)
