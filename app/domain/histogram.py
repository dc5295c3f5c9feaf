"""A log-bucketed histogram that can be merged, and one over a rolling window.

Quantiles have a relative error of at most 4.5 %: buckets grow by 2**(1/8), and a quantile is its
bucket's geometric middle, as in DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019). Only buckets
with counts take memory. Nothing here reads a clock: callers pass monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from math import floor, log2

_BUCKETS_PER_OCTAVE = 8
# Shorter durations count as zero: the event loop's clock is no finer than this.
_SMALLEST = 1e-6
_ZERO_BUCKET = floor(log2(_SMALLEST) * _BUCKETS_PER_OCTAVE)


class Histogram:
    """Counts of durations by logarithmic bucket, and the exact longest duration."""

    __slots__ = ("counts", "longest")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.longest = 0.0

    def record(self, seconds: float, count: int = 1) -> None:
        """Count a duration, *count* times; anything under a microsecond counts as zero."""
        bucket = _ZERO_BUCKET
        if seconds > _SMALLEST:
            bucket = floor(log2(seconds) * _BUCKETS_PER_OCTAVE)
        if seconds > self.longest:  # noqa: PLR1730 - on every lease: max() takes twice as long
            self.longest = seconds
        try:
            self.counts[bucket] += count
        except KeyError:
            self.counts[bucket] = count

    def merge(self, other: Histogram) -> None:
        """Add everything that *other* counted."""
        counts = self.counts
        if counts:
            known = counts.get
            for bucket, count in other.counts.items():
                counts[bucket] = known(bucket, 0) + count
        else:
            counts.update(other.counts)
        self.longest = max(self.longest, other.longest)

    def __sub__(self, earlier: Histogram) -> Histogram:
        """Return what was counted since *earlier*; `longest` may be the middle of its bucket."""
        rest, known = Histogram(), earlier.counts.get
        for bucket, count in self.counts.items():
            if more := count - known(bucket, 0):
                rest.counts[bucket] = more
        if rest.counts:
            rest.longest = self.longest
            if self.longest <= earlier.longest:
                rest.longest = min(_middle(max(rest.counts)), self.longest)
        return rest

    def raise_to(self, earlier: Histogram) -> None:
        """Raise every bucket to at least what *earlier* counted."""
        for bucket, count in earlier.counts.items():
            if self.counts.get(bucket, 0) < count:
                self.counts[bucket] = count
        self.longest = max(self.longest, earlier.longest)

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts.values())

    def moments(self) -> tuple[int, float, float]:
        """Return the number of durations, their sum in seconds, and the sum of their squares."""
        total, seconds, squares = 0, 0.0, 0.0
        for bucket, count in self.counts.items():
            middle = _middle(bucket)
            total += count
            seconds += count * middle
            squares += count * middle * middle
        return total, seconds, squares

    def count_above(self, seconds: float) -> int:
        """Count the durations longer than *seconds*, as precisely as the buckets allow."""
        return sum(count for bucket, count in self.counts.items() if _middle(bucket) > seconds)

    def cumulative_counts(self, octaves: Iterable[int]) -> tuple[int, ...]:
        """Count the durations shorter than 2**octave seconds, for each of *octaves*; exact."""
        return tuple(
            sum(
                count
                for bucket, count in self.counts.items()
                if bucket < octave * _BUCKETS_PER_OCTAVE
            )
            for octave in octaves
        )

    def quantiles(self, fractions: Iterable[float]) -> tuple[float | None, ...]:
        """Return the seconds below which each of *fractions* (0..1, ascending) lies.

        None if empty.
        """
        buckets = sorted(self.counts.items())
        total = self.count
        answers: list[float | None] = []
        seen, position = 0, -1
        for fraction in fractions:
            rank = max(1.0, fraction * total)
            while position + 1 < len(buckets) and seen < rank:
                position += 1
                seen += buckets[position][1]
            # A bucket's middle may lie beyond the longest recorded duration.
            answers.append(min(_middle(buckets[position][0]), self.longest) if total else None)
        return tuple(answers)


@cache
def _middle(bucket: int) -> float:
    if bucket == _ZERO_BUCKET:
        return 0.0
    return float(2 ** ((bucket + 0.5) / _BUCKETS_PER_OCTAVE))


class RollingHistogram:
    """A histogram of the last *window* seconds, in *slices* that are dropped one by one.

    It covers at most *window*, and at least *window* less one slice. Empty slices take no memory:
    thousands of quiet tenants have one of these.
    """

    __slots__ = (
        "_counts",
        "_ends_at",
        "_flush_to",
        "_longest",
        "_past",
        "_slices",
        "_total",
        "_window",
    )

    def __init__(
        self, window: float = 300.0, slices: int = 10, *, flush_to: Histogram | None = None
    ) -> None:
        """Cover *window* seconds (> 0), forgetting in steps of window / slices.

        Ended slices are added to *flush_to*, which several of these may share.
        """
        self._window = window
        self._flush_to = flush_to
        self._slices = slices
        self._ends_at = 0.0
        # The counts of the current slice. A histogram object would cost each tenant as much as the
        # counts.
        self._counts: dict[int, int] = {}
        self._longest = 0.0
        self._past: tuple[tuple[float, Histogram], ...] = ()
        # All slices that have ended since `start_total`.
        self._total: Histogram | None = None

    def record(self, seconds: float, now: float) -> None:
        """Count one duration that ended at *now*."""
        if now >= self._ends_at:
            self._rotate(now)
        # Histogram.record inlined: this runs on every lease, and a call would double its time.
        bucket = floor(log2(seconds) * _BUCKETS_PER_OCTAVE) if seconds > _SMALLEST else _ZERO_BUCKET
        if seconds > self._longest:  # noqa: PLR1730 - as in Histogram
            self._longest = seconds
        try:
            self._counts[bucket] += 1
        except KeyError:
            self._counts[bucket] = 1

    def merged(self, now: float) -> Histogram:
        """Everything inside the window, as one histogram."""
        if now >= self._ends_at:
            self._rotate(now)
        self._drop_old(now)
        merged = Histogram()
        merged.merge(self._current())
        for _, past in self._past:
            merged.merge(past)
        return merged

    def start_total(self) -> None:
        """From now on, keep for `total` what leaves the window."""
        self.flush()
        self._total = Histogram()

    def stop_total(self) -> None:
        """Keep the window only."""
        self._total = None

    def total(self) -> Histogram:
        """Everything since `start_total`; empty without it. It adds no cost to recording."""
        total = Histogram()
        if self._total is not None:
            total.merge(self._total)
            total.merge(self._current())
        return total

    def add_unflushed_to(self, histogram: Histogram) -> None:
        """Add to *histogram* what is not in `flush_to` yet."""
        if self._counts:
            histogram.merge(self._current())

    def flush(self) -> None:
        """End the current slice, so that everything is in `flush_to`."""
        if not self._counts:
            return
        ended = self._current()
        if self._total is not None:
            self._total.merge(ended)
        if self._flush_to is not None:
            self._flush_to.merge(ended)
        self._past = (*self._past, (self._ends_at, ended))
        self._counts, self._longest = {}, 0.0

    def _rotate(self, now: float) -> None:
        """End the current slice, and start the next one."""
        self.flush()
        self._ends_at = now + self._window / self._slices
        self._drop_old(now)

    def _current(self) -> Histogram:
        """The current slice, which keeps counting."""
        current = Histogram()
        current.counts, current.longest = self._counts, self._longest
        return current

    def _drop_old(self, now: float) -> None:
        """Drop the slices that began before the window."""
        oldest_end = now - self._window + self._window / self._slices
        self._past = tuple(kept for kept in self._past if kept[0] >= oldest_end)
