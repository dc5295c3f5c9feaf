"""Turns polls into samples: decides what is worth a row, and how much counters grew.

It is synchronous and does no I/O. Polls of a subject with the same values become one sample per
minute: an idle pool costs one row a minute, and its averages stay exact.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter

from app.domain.history import PoolSample, Resolution
from app.domain.pool import PoolStats

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_measured = attrgetter(
    "counters.connections_acquired",
    "counters.timeouts",
    "metrics.active_connections",
    "metrics.idle_connections",
    "metrics.waiting_requests",
    "wait.p95_ms",
    "wait.p99_ms",
    "hold.p95_ms",
    "connect.p95_ms",
)


class Sampler:
    """Finds what is new in each poll. Every sample that it yields must be stored, in that order."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    def sample(
        self, subject: str, at: datetime, size: int, stats: PoolStats, connection_seconds: float
    ) -> Iterator[PoolSample]:
        """Yield the samples to store after *subject* was measured; none if nothing is new.

        *connection_seconds*: its connection-seconds so far.
        """
        run = self._runs.get(subject)
        if run is None:
            run = self._runs[subject] = _Run()
        is_same = run.measured_same(size, stats)
        minute = Resolution.MINUTE.floor(at)
        if run.latest and run.polls and not (is_same and minute == run.minute and at > run.at):
            yield run.end(run.latest)
        if is_same:
            run.go_on(at, connection_seconds)
        else:
            yield run.begin(subject, at, size, stats, connection_seconds)
        run.at, run.minute = at, minute

    def end_missing(self, at: datetime, is_known: Callable[[str], bool]) -> Iterator[PoolSample]:
        """Yield the samples to store of subjects that the poll at *at* did not measure.

        Their counters are kept while the subjects are known.
        """
        for subject in [subject for subject, run in self._runs.items() if run.at is not at]:
            run = self._runs[subject]
            if run.latest and run.polls:
                yield run.end(run.latest)
            run.latest = None
            if not is_known(subject):
                del self._runs[subject]

    def end_all(self) -> list[PoolSample]:
        """The samples not stored yet, when nothing will be measured any more."""
        runs, self._runs = self._runs, {}
        return [run.end(run.latest) for run in runs.values() if run.latest and run.polls]


@dataclass(slots=True, eq=False)
class _Run:
    """A subject's latest sample, and the polls since then with the same values.

    It is changed in place: thousands of new objects at each poll would make Python's garbage
    collector scan all objects.
    """

    latest: PoolSample | None = None
    measured: tuple[object, ...] = ()
    acquired: int = 0
    timeouts: int = 0
    connection_seconds: float = 0.0
    connection_seconds_stored: float = 0.0
    polls: int = 0
    since: datetime = _LONG_AGO
    at: datetime = _LONG_AGO
    minute: datetime = _LONG_AGO

    def measured_same(self, size: int, stats: PoolStats) -> bool:
        return self.latest is not None and self.measured == (size, *_measured(stats))

    def begin(
        self, subject: str, at: datetime, size: int, stats: PoolStats, connection_seconds: float
    ) -> PoolSample:
        counters = stats.counters
        if counters.connections_acquired < self.acquired:
            self.connection_seconds_stored = 0.0
        self.connection_seconds = connection_seconds
        self.latest = PoolSample(
            subject=subject,
            at=at,
            total_connections=size,
            active_connections=stats.metrics.active_connections,
            idle_connections=stats.metrics.idle_connections,
            waiting_requests=stats.metrics.waiting_requests,
            acquired=_growth(self.acquired, counters.connections_acquired),
            timeouts=_growth(self.timeouts, counters.timeouts),
            connection_seconds=self._take_connection_seconds(),
            wait_p95_ms=stats.wait.p95_ms,
            wait_p99_ms=stats.wait.p99_ms,
            hold_p95_ms=stats.hold.p95_ms,
            connect_p95_ms=stats.connect.p95_ms,
        )
        self.measured = (size, *_measured(stats))
        self.acquired, self.timeouts = counters.connections_acquired, counters.timeouts
        return self.latest

    def go_on(self, at: datetime, connection_seconds: float) -> None:
        self.connection_seconds = connection_seconds
        if not self.polls:
            self.since = at
        self.polls += 1

    def end(self, latest: PoolSample) -> PoolSample:
        gaps = max(self.polls - 1, 1)
        ended = replace(
            latest,
            at=self.at,
            polls=self.polls,
            gap_seconds=(self.at - self.since).total_seconds() / gaps,
            acquired=0,
            timeouts=0,
            connection_seconds=self._take_connection_seconds(),
        )
        self.polls = 0
        return ended

    def _take_connection_seconds(self) -> float:
        """The growth since the last call; rounding never makes it negative."""
        stored = self.connection_seconds_stored
        self.connection_seconds_stored = max(stored, self.connection_seconds)
        return self.connection_seconds_stored - stored


def _growth(before: int, now: int) -> int:
    """The growth of a counter; if it fell, it restarted at zero with its tenant."""
    return now - before if now >= before else now
