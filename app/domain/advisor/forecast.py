"""What will be asked of a pool next, from what was asked of it so far.

Arrivals come from `arrival_rate`. The mean hold is remembered twice: as it is, and as it was
while the pool was less than half busy, because a database that runs more statements at a time
takes longer for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import exp

from app.domain.advisor.arrival_rate import ArrivalRate
from app.domain.advisor.demand_config import DemandConfig
from app.domain.advisor.erlang import OfferedLoad
from app.domain.advisor.observation import PoolObservation

_LIGHT = 0.5
# Most weight of the newest mean hold in the one under light load, and the leases it takes.
_BASE_SMOOTHING = 0.1
_MANY_FOR_BASE = 100
# Fewer ended leases say nothing about a variance.
_MANY = 20
_MOST_VARIED = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is remembered of one pool's arrivals and holds.

    Attributes:
        arrivals: callers a second.
        hold_count: leases ended, with exponential decay.
        hold_sum: their seconds, decayed alike.
        hold_square_sum: their squared seconds, decayed alike.
        base_hold: mean seconds of a lease under light load; None before any lease ended.
    """

    arrivals: ArrivalRate = field(default_factory=ArrivalRate)
    hold_count: float = 0.0
    hold_sum: float = 0.0
    hold_square_sum: float = 0.0
    base_hold: float | None = None

    @property
    def hold(self) -> float | None:
        """Mean seconds of a lease; None before any ended."""
        return self.hold_sum / self.hold_count if self.hold_count else None

    @property
    def cv2(self) -> float:
        """Squared coefficient of variation of the holds; 1 (exponential) when too few ended."""
        if self.hold_count < _MANY or not self.hold_sum:
            return 1.0
        return min(
            max(
                self.hold_count * self.hold_square_sum / (self.hold_sum * self.hold_sum) - 1.0, 0.0
            ),
            _MOST_VARIED,
        )

    def updated(self, config: DemandConfig, seen: PoolObservation) -> Forecast:
        """The forecast after *seen*."""
        ended, held, squares = seen.hold.moments()
        kept = exp(-seen.seconds / config.hold_seconds)
        ended_now = self.hold_count * kept + ended
        held_now = self.hold_sum * kept + held
        return Forecast(
            arrivals=self.arrivals.updated(config, seen.arrivals, seen.seconds),
            hold_count=ended_now,
            hold_sum=held_now,
            hold_square_sum=self.hold_square_sum * kept + squares,
            base_hold=self._base_after(
                seen, ended, held, held_now / ended_now if ended_now else None
            ),
        )

    def rebased(self) -> Forecast:
        """The same, with the present hold as the base: more connections did pay."""
        return replace(self, base_hold=self.hold)

    def load(self, config: DemandConfig) -> OfferedLoad:
        """What the pool has to carry: the rate with its margin, and the uninflated hold."""
        hold = self._uninflated_hold(config)
        erlangs = self.arrivals.expected(config) * hold
        return OfferedLoad(erlangs=erlangs, hold=hold, cv2=self.cv2 if hold else 1.0)

    def offered_load(self, config: DemandConfig) -> float:
        """What callers offer now, erlangs: the same without the margin."""
        return self.arrivals.steady * self._uninflated_hold(config)

    def is_inflated(self, config: DemandConfig) -> bool:
        """Whether leases last so much longer than under light load that ours may be why."""
        hold, base = self.hold, self.base_hold
        return hold is not None and base is not None and hold > config.hold_inflation * base > 0.0

    def _uninflated_hold(self, config: DemandConfig) -> float:
        hold, base = self.hold or 0.0, self.base_hold or 0.0
        return min(hold, config.hold_inflation * base) if base > 0.0 else hold

    def _base_after(
        self, seen: PoolObservation, ended: int, held: float, hold: float | None
    ) -> float | None:
        base = self.base_hold
        if base is None or hold is None:
            return hold
        if ended and seen.mean_active < _LIGHT * seen.max_size:
            return base + min(_BASE_SMOOTHING, ended / _MANY_FOR_BASE) * (held / ended - base)
        # Load only ever makes it longer: what is shorter was not inflated.
        return min(base, hold)
