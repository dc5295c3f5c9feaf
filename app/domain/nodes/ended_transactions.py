"""The ended transactions of an entry, computed from a pooler's totals and gauges.

PgBouncer counts a transaction when its client asks for it, its wait when it gets a connection, and
its duration when it ends (`xact_count`, `wait_time`, `xact_time`). So while transactions are under
way, the three sums cover different transactions. The gauges show how many are under way: clients
that wait, and connections in use. Since 1.23 PgBouncer also counts those that got a connection
(`server_assignment_count`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from app.domain.nodes.estimates import EntryTotals
from app.domain.nodes.report import EntryReport
from app.domain.nodes.shortfall import Shortfall


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTransactions:
    """Sums of one entry on one node since its first report; they never fall.

    Where the pooler does not count what began, a client that gives up waiting counts as a
    transaction that ended at once.

    Attributes:
        begun: transactions that got a connection.
        begun_wait_seconds: the sum of their waits.
        recent_wait: mean wait of the latest of them, as many as there are connections in use.
        ended: transactions that ended.
        ended_wait_seconds: the sum of their waits.
        shortfall: how far their durations are behind their waits.
    """

    begun: int
    begun_wait_seconds: float = 0.0
    recent_wait: float = 0.0
    ended: int = 0
    ended_wait_seconds: float = 0.0
    shortfall: Shortfall = field(default_factory=Shortfall)

    @classmethod
    def since(cls, first: EntryReport) -> Self:
        """Start with the *first* report; transactions already under way count when they end."""
        return cls(
            begun=first.in_use,
            begun_wait_seconds=first.in_use * first.longest_wait,
            recent_wait=first.longest_wait,
        )

    def updated(
        self, before: EntryReport, now: EntryReport, seconds: float
    ) -> tuple[Self, EntryTotals]:
        """Add the report that is *seconds* after *before*.

        Also return the totals of what ended between the two.
        """
        added, waiting, known = now.totals.since(before.totals), before.waiting, self
        if not now.totals.continues(before.totals):
            # The pooler restarted, and the transactions under way are lost.
            waiting = 0
            known = replace(self, begun=self.ended, begun_wait_seconds=self.ended_wait_seconds)
        newly = added.begun
        if newly is None:
            newly = added.transactions - (now.waiting - waiting)
        recent = known.recent_wait
        if newly > 0:
            recent += min(1.0, newly / max(1, now.in_use)) * (added.wait_seconds / newly - recent)
        begun, waited = known.begun + newly, known.begun_wait_seconds + added.wait_seconds
        # Clients are served in order. So while the queue grows, running transactions have waited at
        # least as long as the first client in the queue.
        running_waited = now.in_use * max(recent, now.longest_wait)
        # Totals and gauges are not read at the same moment, so the results may be slightly off.
        after = replace(
            known,
            begun=begun,
            begun_wait_seconds=waited,
            recent_wait=recent,
            ended=max(known.ended, begun - now.in_use),
            ended_wait_seconds=max(known.ended_wait_seconds, waited - running_waited),
        )
        wait = after.ended_wait_seconds - known.ended_wait_seconds
        shortfall, uncounted = self.shortfall.updated(
            wait - added.transaction_seconds,
            seconds * (before.in_use + now.in_use) / 2.0,
            under_way=max(before.size, now.size)
            * max(recent, before.longest_wait, now.longest_wait),
        )
        return replace(after, shortfall=shortfall), replace(
            added,
            transactions=after.ended - known.ended,
            transaction_seconds=added.transaction_seconds + uncounted,
            wait_seconds=wait,
        )
