"""What a pooler's totals say of a tenant's load: PgBouncer keeps sums, no histograms.

`xact_count` counts transactions, so arrivals. `xact_time` includes the wait for a connection, so
the mean hold is S = (xact_time - wait_time) / xact_count, and the offered load a = arrivals/s x S.

How many wait, and how long, follows from the queue that a pool of c connections is (`erlang`):
a share C of all callers waits, and those who do wait S / (c - a) in the mean, exponentially. As the
mean wait W of all callers is measured, C = W (c - a) / S. Erlang's C for this load is its lower
bound: near and above saturation, c - a is mostly noise. The mean of those who wait is W / C then,
so that the estimates agree with the measured W:

    P(wait > t) = C exp(-t C / W)        p99 = W / C ln(C / 0.01)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Self

from app.domain.advisor.erlang import OfferedLoad, late_share

_PERCENTILE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryTotals:
    """Sums of one entry. They begin anew when the pooler frees its pool, or restarts.

    Attributes:
        transactions: that ended.
        transaction_seconds: they lasted so long, with the wait for a connection.
        wait_seconds: of those that got a connection.
    """

    transactions: int = 0
    transaction_seconds: float = 0.0
    wait_seconds: float = 0.0

    def since(self, earlier: EntryTotals) -> EntryTotals:
        """What was added after *earlier*, at least: sums that fell began anew in between."""
        if (
            self.transactions < earlier.transactions
            or self.transaction_seconds < earlier.transaction_seconds
            or self.wait_seconds < earlier.wait_seconds
        ):
            return self
        return EntryTotals(
            transactions=self.transactions - earlier.transactions,
            transaction_seconds=self.transaction_seconds - earlier.transaction_seconds,
            wait_seconds=self.wait_seconds - earlier.wait_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedLoad:
    """The load of one entry during some time.

    Attributes:
        arrivals: transactions a second.
        hold: mean seconds of a transaction, without the wait.
        wait: mean seconds that it waited for a connection.
    """

    arrivals: float
    hold: float
    wait: float

    @classmethod
    def during(cls, seconds: float, added: EntryTotals) -> Self | None:
        """The load during *seconds*, above 0; None when no transaction ended."""
        if added.transactions == 0:
            return None
        # Times are read apart: a transaction may end between them.
        hold = max(0.0, added.transaction_seconds - added.wait_seconds) / added.transactions
        return cls(
            arrivals=added.transactions / seconds,
            hold=hold,
            wait=added.wait_seconds / added.transactions,
        )

    @property
    def erlangs(self) -> float:
        """Connections in use on average."""
        return self.arrivals * self.hold

    def late_share(self, size: int, patience: float) -> float:
        """Share of transactions (0..1) that waited longer than *patience* seconds, estimated."""
        waiting = self._waiting_share(size)
        return waiting * exp(-patience * waiting / self.wait) if waiting else 0.0

    def wait_p99(self, size: int) -> float:
        """Seconds that one of a hundred transactions waited, or longer; estimated."""
        waiting = self._waiting_share(size)
        return self.wait / waiting * log(waiting / _PERCENTILE) if waiting > _PERCENTILE else 0.0

    def _waiting_share(self, size: int) -> float:
        """Share of transactions that waited at all for one of *size* connections."""
        if self.wait <= 0.0 or self.hold <= 0.0:
            return 1.0 if self.wait > 0.0 else 0.0
        measured = self.wait * (size - self.erlangs) / self.hold
        expected = late_share(OfferedLoad(erlangs=self.erlangs, hold=self.hold), size, 0.0)
        return min(1.0, max(measured, expected))
