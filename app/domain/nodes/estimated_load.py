"""A tenant's load, estimated from a pooler's totals: PgBouncer keeps sums, no histograms.

All sums are of ended transactions (see `ended_transactions`). `xact_time` includes the wait for a
connection, so the mean hold is S = (xact_time - wait_time) / count, and the carried load is
a = count/s x S.
The distribution of waits, beyond their mean, is in `wait_estimate`.
"""

from dataclasses import dataclass
from math import exp, inf
from typing import Self

from app.domain.histogram import Histogram
from app.domain.nodes.entry_totals import EntryTotals, WaitClasses

# An exponential distribution, in quarter octaves from a hundredth of its mean to 11 times its mean.
_EXPONENTIAL = tuple(2.0 ** (step / 4) for step in range(-26, 15))


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedLoad:
    """The load of one entry over some time.

    Attributes:
        arrivals: transactions a second, of those that ended.
        hold: mean seconds of a transaction, without the wait.
        wait: mean seconds that it waited for a connection.
        oldest_waits: what the agent saw in that time.
        longest_wait: an upper bound of each wait, in seconds: the sum of all.
    """

    arrivals: float
    hold: float
    wait: float
    oldest_waits: WaitClasses = ()
    longest_wait: float = inf

    @classmethod
    def during(cls, seconds: float, added: EntryTotals) -> Self | None:
        """Estimate the load during *seconds*, above 0; None if no transaction ended."""
        if added.transactions == 0:
            return None
        return cls(
            arrivals=added.transactions / seconds,
            hold=added.held_seconds / added.transactions,
            wait=added.wait_seconds / added.transactions,
            oldest_waits=added.oldest_waits,
            longest_wait=added.wait_seconds,
        )

    @property
    def erlangs(self) -> float:
        """Mean number of connections in use."""
        return self.arrivals * self.hold

    def holds(self, count: int) -> Histogram:
        """How long *count* transactions held a connection, assuming an exponential distribution."""
        classes: list[tuple[float, int]] = []
        below, lower = 0, 0.0
        for edge in _EXPONENTIAL:
            until = count if edge == _EXPONENTIAL[-1] else round(count * (1.0 - exp(-edge)))
            classes.append(((lower + edge) / 2.0, until - below))
            below, lower = until, edge
        # This keeps the mean exact for few transactions too.
        total = sum([length * among for length, among in classes])
        counted = Histogram()
        for length, among in classes:
            if among:
                counted.record(length * self.hold * count / total, among)
        return counted
