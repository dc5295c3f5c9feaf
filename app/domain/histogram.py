"""A mergeable log-bucketed histogram, and the same over a rolling window.

Durations in seconds go in, quantiles come out with a relative error of at most 4.5 %:
buckets grow by 2**(1/8), a quantile answers with its bucket's geometric middle, as DDSketch
does (Masson, Rim, Lee: "DDSketch", VLDB 2019). Only buckets that were hit take memory.
No clock is read here: callers pass monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import floor, log2

_BUCKETS_PER_OCTAVE = 8
# Below a microsecond nothing is told apart: a loop's clock is no finer.
_SMALLEST = 1e-6
_ZERO_BUCKET = floor(log2(_SMALLEST) * _BUCKETS_PER_OCTAVE)


class Histogram:
    """Counts of durations by logarithmic bucket, and the longest one exactly."""

    __slots__ = ("counts", "longest")

    def __init__(self) -> None:
        """Start empty."""
        self.counts: dict[int, int] = {}
        self.longest = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration; anything under a microsecond counts as zero."""
        bucket = _ZERO_BUCKET
        if seconds > _SMALLEST:
            bucket = floor(log2(seconds) * _BUCKETS_PER_OCTAVE)
        if seconds > self.longest:  # noqa: PLR1730 - on every lease: max() takes twice as long
            self.longest = seconds
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        """Add everything that *other* counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.longest = max(self.longest, other.longest)

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.counts.values())

    def quantiles(self, fractions: Iterable[float]) -> tuple[float | None, ...]:
        """Seconds below which each of the ascending *fractions* (0..1) lies; None when empty."""
        buckets = sorted(self.counts.items())
        total = self.total
        answers: list[float | None] = []
        seen, position = 0, -1
        for fraction in fractions:
            rank = max(1.0, fraction * total)
            while position + 1 < len(buckets) and seen < rank:
                position += 1
                seen += buckets[position][1]
            # A bucket's middle may lie beyond the longest duration there was.
            answers.append(min(_middle(buckets[position][0]), self.longest) if total else None)
        return tuple(answers)


def _middle(bucket: int) -> float:
    if bucket == _ZERO_BUCKET:
        return 0.0
    return float(2 ** ((bucket + 0.5) / _BUCKETS_PER_OCTAVE))


class RollingHistogram:
    """Histograms of the last *window* seconds, in *slices* that fall off one by one.

    Nothing older than *window* is covered, and at least *window* less one slice is. Slices in
    which nothing was recorded take no memory: thousands of quiet tenants keep one of these.
    """

    __slots__ = ("_current", "_ends_at", "_past", "_slice", "_window")

    def __init__(self, window: float = 300.0, slices: int = 10) -> None:
        """Cover *window* seconds (> 0), forgetting in steps of window / slices."""
        self._window = window
        self._slice = window / slices
        self._ends_at = 0.0
        self._current = Histogram()
        self._past: tuple[tuple[float, Histogram], ...] = ()

    def record(self, seconds: float, now: float) -> None:
        """Count one duration that ended at *now*."""
        if now >= self._ends_at:
            self._turn(now)
        self._current.record(seconds)

    def merged(self, now: float) -> Histogram:
        """Everything inside the window, as one histogram."""
        if now >= self._ends_at:
            self._turn(now)
        self._forget(now)
        merged = Histogram()
        merged.merge(self._current)
        for _, past in self._past:
            merged.merge(past)
        return merged

    def _turn(self, now: float) -> None:
        """Close the current slice, and begin the next one now."""
        if self._current.counts:
            self._past = (*self._past, (self._ends_at, self._current))
            self._current = Histogram()
        self._ends_at = now + self._slice
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop the slices that began before the window."""
        oldest_end = now - self._window + self._slice
        self._past = tuple(kept for kept in self._past if kept[0] >= oldest_end)
