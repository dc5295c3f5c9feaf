"""Running means of measured seconds: of each value, or of what counters have grown by."""

from __future__ import annotations

from math import inf

# Timers of an event loop are not finer.
_GRANULARITY = 0.001
# The weight of the newest value in a mean, see RFC 6298, section 2.
_NEWEST = 1 / 8


class Smoothed:
    """Mean and mean deviation of what was measured lately.

    Estimated as TCP estimates its round trips, with the same gains (RFC 6298, section 2).

    Attributes:
        mean: in seconds, 0 until something was measured.
        deviation: mean distance from `mean`, in seconds.
    """

    __slots__ = ("deviation", "mean")

    def __init__(self) -> None:
        """Begin without history."""
        self.mean = self.deviation = 0.0

    def note(self, seconds: float) -> None:
        """Another value was measured."""
        if self.mean:
            error = seconds - self.mean
            self.mean += error * _NEWEST
            self.deviation += (abs(error) - self.deviation) / 4
        else:
            self.mean, self.deviation = seconds, seconds / 2

    @property
    def bound(self) -> float:
        """Seconds within which nearly every value is; inf until something was measured."""
        return self.mean + max(_GRANULARITY, 4 * self.deviation) if self.mean else inf


class SmoothedGrowth:
    """The mean of a sum's growth for each value counted in it, the latest ones weighing most.

    As `Smoothed.mean`, if the values between two looks are alike; but it costs the values nothing.
    """

    __slots__ = ("_count", "_mean", "_seconds")

    def __init__(self, count: int, seconds: float) -> None:
        """Begin without history at what the counters show now."""
        self._count, self._seconds, self._mean = count, seconds, 0.0

    def mean(self, count: int, seconds: float) -> float:
        """The mean when the counters show this, 0 until a value was counted."""
        if more := count - self._count:
            lately = (seconds - self._seconds) / more
            kept = (1 - _NEWEST) ** more if self._mean else 0.0
            self._mean = lately + (self._mean - lately) * kept
            self._count, self._seconds = count, seconds
        return self._mean
