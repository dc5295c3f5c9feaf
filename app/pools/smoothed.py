"""A running mean of measured seconds, and how far they stray from it."""

from __future__ import annotations

from math import inf

# Timers of an event loop are not finer.
_GRANULARITY = 0.001


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
            self.mean += error / 8
            self.deviation += (abs(error) - self.deviation) / 4
        else:
            self.mean, self.deviation = seconds, seconds / 2

    @property
    def bound(self) -> float:
        """Seconds within which nearly every value is; inf until something was measured."""
        return self.mean + max(_GRANULARITY, 4 * self.deviation) if self.mean else inf
