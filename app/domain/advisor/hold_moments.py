"""How long leases last: the mean, and how much it varies."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.histogram import Histogram

# With fewer ended leases, the variance says nothing.
_MANY = 20
_MOST_VARIED = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldMoments:
    """Moments of the durations of ended leases; older leases have less weight.

    Attributes:
        count: number of leases.
        seconds: sum of their durations.
        squares: sum of the squares of their durations.
    """

    count: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, ended: Histogram) -> HoldMoments:
        """The moments of the leases in *ended*."""
        count, seconds, squares = ended.moments()
        return cls(count=count, seconds=seconds, squares=squares)

    def updated(self, kept: float, ended: HoldMoments) -> HoldMoments:
        """Add the leases that *ended* since.

        The earlier ones keep a share *kept* (0..1) of their weight.
        """
        return HoldMoments(
            count=self.count * kept + ended.count,
            seconds=self.seconds * kept + ended.seconds,
            squares=self.squares * kept + ended.squares,
        )

    @property
    def mean(self) -> float | None:
        """Mean seconds of a lease; None until one has ended."""
        return self.seconds / self.count if self.count else None

    @property
    def cv2(self) -> float:
        """Squared coefficient of variation; 1 (exponential) if too few leases ended."""
        if self.count < _MANY or not self.seconds:
            return 1.0
        cv2 = self.count * self.squares / (self.seconds * self.seconds) - 1.0
        return min(max(cv2, 0.0), _MOST_VARIED)
