"""Running means of durations: of single values, or of the growth of counters."""

from math import inf

# Event loop timers are no finer.
_GRANULARITY = 0.001
# The weight of the newest value in a mean; see RFC 6298, section 2.
_NEWEST = 1 / 8


class Smoothed:
    """Mean and mean deviation of recent values.

    They are estimated as TCP estimates its round trips, with the same gains (RFC 6298, section 2).

    Attributes:
        mean: in seconds; 0 until a value was noted.
        deviation: mean distance from `mean`, in seconds.
    """

    __slots__ = ("deviation", "mean")

    def __init__(self) -> None:
        self.mean = self.deviation = 0.0

    def note(self, seconds: float) -> None:
        """Add a value."""
        if self.mean:
            error = seconds - self.mean
            self.mean += error * _NEWEST
            self.deviation += (abs(error) - self.deviation) / 4
        else:
            self.mean, self.deviation = seconds, seconds / 2

    @property
    def bound(self) -> float:
        """A bound, in seconds, that nearly every value stays below; inf until a value was noted."""
        return self.mean + max(_GRANULARITY, 4 * self.deviation) if self.mean else inf


class SmoothedGrowth:
    """The mean value behind a growing sum; the latest values have the most weight.

    It equals `Smoothed.mean` if the values between two looks are alike, but adding a value costs
    nothing.
    """

    __slots__ = ("_count", "_mean", "_seconds")

    def __init__(self, count: int, seconds: float) -> None:
        """Start without history; *count* and *seconds* are the counters' present values."""
        self._count, self._seconds, self._mean = count, seconds, 0.0

    def mean(self, count: int, seconds: float) -> float:
        """The mean at these counter values; 0 until a value was counted."""
        if more := count - self._count:
            lately = (seconds - self._seconds) / more
            kept = (1 - _NEWEST) ** more if self._mean else 0.0
            self._mean = lately + (self._mean - lately) * kept
            self._count, self._seconds = count, seconds
        return self._mean
