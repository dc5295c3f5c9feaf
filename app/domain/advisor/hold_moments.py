"""How long leases lasted: their mean, and how much they vary."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.histogram import Histogram

# Fewer ended leases say nothing about a variance.
_MANY = 20
_MOST_VARIED = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldMoments:
    """Moments of the durations of leases that ended, older ones with less weight.

    Attributes:
        count: leases.
        seconds: theirs, summed.
        squares: the squares of theirs, summed.
    """

    count: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, ended: Histogram) -> HoldMoments:
        """Those of leases that *ended*."""
        count, seconds, squares = ended.moments()
        return cls(count=count, seconds=seconds, squares=squares)

    def updated(self, kept: float, ended: HoldMoments) -> HoldMoments:
        """With those that *ended* since; those before keep a share *kept* (0..1)."""
        return HoldMoments(
            count=self.count * kept + ended.count,
            seconds=self.seconds * kept + ended.seconds,
            squares=self.squares * kept + ended.squares,
        )

    @property
    def mean(self) -> float | None:
        """Mean seconds of a lease; None before any ended."""
        return self.seconds / self.count if self.count else None

    @property
    def cv2(self) -> float:
        """Squared coefficient of variation; 1 (exponential) when too few ended."""
        if self.count < _MANY or not self.seconds:
            return 1.0
        cv2 = self.count * self.squares / (self.seconds * self.seconds) - 1.0
        return min(max(cv2, 0.0), _MOST_VARIED)
