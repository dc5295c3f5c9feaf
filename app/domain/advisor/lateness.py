"""How many callers waited too long, and a lower confidence bound of their share.

The bound is Wilson's for a proportion ("Probable Inference, the Law of Succession, and
Statistical Inference", 1927), one-sided: a handful of late callers proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from app.domain.advisor.observation import PoolObservation

# One-sided 95 %.
_Z = 1.6449


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """Callers that waited too long, timed out or were refused, among all that were answered."""

    late: int = 0
    callers: int = 0

    def __add__(self, other: Lateness) -> Lateness:
        return Lateness(late=self.late + other.late, callers=self.callers + other.callers)

    @classmethod
    def of(cls, seen: PoolObservation, patience: float) -> Lateness:
        """Count the callers of *seen* that waited over *patience* seconds or got no connection.

        Callers that waited until the pool could be opened do not count: they would wait at any
        size.
        """
        failed = seen.timeouts + seen.rejected
        late, callers = seen.wait.count_above(patience) + failed, seen.acquired + failed
        others = seen.pool_limit_waits
        return cls(late=max(0, late - others), callers=max(0, callers - others))

    @property
    def share(self) -> float:
        """The measured share, 0..1; 0 when nobody asked."""
        return self.late / self.callers if self.callers else 0.0

    @property
    def bound(self) -> float:
        """The smallest share (0..1) that is compatible with the measurement."""
        if not self.late:
            return 0.0
        n, share, z2 = self.callers, self.share, _Z * _Z
        middle = share + z2 / (2 * n)
        spread = _Z * sqrt((share * (1.0 - share) + z2 / (4 * n)) / n)
        return max(0.0, (middle - spread) / (1.0 + z2 / n))
