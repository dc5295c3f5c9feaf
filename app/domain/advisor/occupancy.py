"""The measured occupancy of connections by the latest callers.

The mean hold of the last minutes may be that of other leases than those that come now. Four long
leases raise the mean of a thousand short ones many times over, and the rate of the short ones times
that mean is a load that never existed. Busy connection-seconds are measured (Little's law).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, sqrt

from app.domain.advisor.hold_moments import HoldMoments
from app.domain.advisor.observation import PoolObservation

# An interval with fewer callers counts together with earlier ones, over about a minute.
_MANY = 20
_MEMORY_SECONDS = 60.0
# Standard errors that chance may explain, for holds that vary randomly (exponentially).
_CHANCE = 2.5 * sqrt(2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """The latest callers: those of one interval, or about the last 20.

    Attributes:
        callers: their number.
        occupied: connection-seconds that they held, waited for, or will still hold.
        seconds: the time within which they came.
        holds: holds of the leases that ended meanwhile.
        present: callers that have a connection or wait for one at the end.
    """

    callers: float = 0.0
    occupied: float = 0.0
    seconds: float = 0.0
    holds: HoldMoments = field(default_factory=HoldMoments)
    present: int = 0

    def updated(self, seen: PoolObservation, ended: HoldMoments, hold: float | None) -> Occupancy:
        """Return the occupancy after *seen*, in which leases *ended*.

        *hold*: the mean seconds of a lease so far, None if it is unknown.
        """
        present = seen.metrics.active_connections + seen.metrics.waiting_requests
        if seen.is_estimated:
            # One look per second at nodes measures no concurrency.
            return Occupancy(present=present)
        # A caller whose lease continues after the interval, or that got none, would have held it
        # this long.
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
        """Callers per second."""
        return self.callers / self.seconds if self.seconds else 0.0

    @property
    def most(self) -> float | None:
        """The highest load that was measured beyond chance, in erlangs; None while nobody comes."""
        if self.callers < 1.0:
            return None
        return self.occupied / self.seconds * (1.0 + _CHANCE / sqrt(self.callers))
