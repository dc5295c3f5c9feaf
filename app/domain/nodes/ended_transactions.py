"""The ended transactions of an entry, computed from a pooler's totals and gauges.

PgBouncer counts a transaction when its client asks for it, its wait when it gets a connection, and
its duration when it ends (`xact_count`, `wait_time`, `xact_time`). So while transactions are under
way, the three sums cover different transactions. The gauges show how many are under way: clients
that wait, and connections in use. Since 1.23 PgBouncer also counts those that got a connection
(`server_assignment_count`).

PgBouncer does not notice that a waiting client hangs up. Once it is that client's turn, the client
gets a connection, and its wait is counted, but not its duration, which includes the wait. So
durations are less than connections were in use, and the difference is added. Transactions under way
explain some of it, until they end.
"""

from dataclasses import dataclass, replace
from typing import Self

from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.report import EntryReport

# Connection-seconds. The agent sees connections in use only when it looks, so by chance durations
# are sometimes ahead of them. What is ahead by more is forgotten: it must not hide much later what
# is not counted.
_AHEAD = 5.0


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
        behind: connection-seconds by which their durations are behind connections in use; below 0
            if they are ahead.
    """

    begun: int
    begun_wait_seconds: float = 0.0
    recent_wait: float = 0.0
    ended: int = 0
    ended_wait_seconds: float = 0.0
    behind: float = 0.0

    @classmethod
    def since(cls, first: EntryReport) -> Self:
        """Start with the *first* report; transactions already under way count when they end."""
        return cls(
            begun=first.in_use,
            begun_wait_seconds=first.in_use * first.longest_wait,
            recent_wait=first.longest_wait,
        )

    def updated(self, before: EntryReport, now: EntryReport) -> tuple[Self, EntryTotals]:
        """Add the report *now* that follows *before*.

        Also return the totals of what ended between the two.
        """
        added, waiting, known = now.totals.since(before.totals), before.waiting, self
        if not now.totals.continues(before.totals):
            # The pooler restarted, and the transactions under way are lost.
            waiting = 0
            known = replace(
                self, begun=self.ended, begun_wait_seconds=self.ended_wait_seconds, behind=0.0
            )
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
        behind = uncounted = 0.0
        if added.busy_seconds is not None:
            longest_wait = max(recent, before.longest_wait, now.longest_wait)
            under_way = now.held_seconds + max(before.size, now.size) * longest_wait
            behind = known.behind + added.busy_seconds + wait - added.transaction_seconds
            uncounted = max(0.0, behind - under_way)
        return replace(after, behind=max(-_AHEAD, behind - uncounted)), replace(
            added,
            transactions=after.ended - known.ended,
            transaction_seconds=added.transaction_seconds + uncounted,
            wait_seconds=wait,
        )
