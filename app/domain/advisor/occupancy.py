"""What the latest callers occupied, as it was measured.

The mean hold of the last minutes may be of other leases than those that come now: four long ones
make the mean of a thousand short ones many times longer, and the rate of the short ones times
that mean was never there. Busy connection-seconds were (Little's law).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, sqrt

from app.domain.advisor.hold_moments import HoldMoments
from app.domain.advisor.observation import PoolObservation

# An interval with fewer callers counts together with those before it, of a minute or so.
_MANY = 20
_MEMORY_SECONDS = 60.0
# Standard errors that chance may explain, of holds that vary as at random.
_CHANCE = 2.5 * sqrt(2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """The latest callers: those of one interval, or the last 20 or so.

    Attributes:
        callers: how many.
        occupied: connection-seconds that they held, waited for, or are still going to hold.
        seconds: within which they came.
        holds: of the leases that ended meanwhile.
        present: callers with a connection or waiting for one, at the end.
    """

    callers: float = 0.0
    occupied: float = 0.0
    seconds: float = 0.0
    holds: HoldMoments = field(default_factory=HoldMoments)
    present: int = 0

    def updated(self, seen: PoolObservation, ended: HoldMoments, hold: float | None) -> Occupancy:
        """The occupancy after *seen*, in which leases *ended*.

        *hold*: the mean seconds of a lease so far, None if it is unknown.
        """
        present = seen.metrics.active_connections + seen.metrics.waiting_requests
        if seen.estimated is not None:
            # Looks at nodes once a second measure no concurrency.
            return Occupancy(present=present)
        # Whose lease goes on after the interval, or who got none, would have held it so long.
        absent = max(0, present - self.present) + seen.timeouts + seen.rejected
        concurrency = seen.mean_active + seen.mean_waiting
        kept = max(0.0, 1.0 - seen.arrivals / _MANY) * exp(-seen.seconds / _MEMORY_SECONDS)
        return Occupancy(
            callers=self.callers * kept + seen.arrivals,
            occupied=self.occupied * kept + concurrency * seen.seconds + absent * (hold or 0.0),
            seconds=self.seconds * kept + seen.seconds,
            holds=self.holds.updated(kept, ended),
            present=present,
        )

    @property
    def hold(self) -> float | None:
        """Mean seconds that a caller occupied a connection; None while nobody comes."""
        return self.occupied / self.callers if self.callers >= 1.0 else None

    @property
    def rate(self) -> float:
        """Callers a second."""
        return self.callers / self.seconds if self.seconds else 0.0

    @property
    def most(self) -> float | None:
        """Erlangs: the most that was measured, beyond chance; None while nobody comes."""
        if self.callers < 1.0:
            return None
        return self.occupied / self.seconds * (1.0 + _CHANCE / sqrt(self.callers))
