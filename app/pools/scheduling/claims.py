"""Claims: which pools want connections that they cannot have yet, in the order of their ranks.

The scheduling policy sets the ranks and decides whose turn it is.
"""

from dataclasses import dataclass
from math import inf

from app.pools.scheduling.ranking import Ranking
from app.pools.scheduling.scheduled_pool import ScheduledPool


@dataclass(slots=True, eq=False)
class Claim:
    """The claim of one pool.

    Attributes:
        wanted: how many connections it wants.
        key: the key of the tenant whose caller is next, see `ConnectionUse`; inf if no caller
            waits.
        rank: its position in the order; the lowest is first.
        since: if it has no connection at all, when its next caller began to wait.
        overdue_at: likewise, when its turn becomes overdue.
    """

    pool: ScheduledPool
    wanted: int
    key: float
    rank: tuple[float, ...]
    since: float | None = None
    overdue_at: float = inf


class Claims:
    """The claims of one server's pools; each operation takes O(log n), see `Ranking`.

    Attributes:
        by_pool: the claim of each pool that has one.
        wanted: number of connections that they want together.
        unserved: number of these pools that have no connection at all.
        turns: number of claims that got their connection so far.
        changes: number of times that claims came, went, or changed their order.
    """

    def __init__(self) -> None:
        """Start without claims."""
        self.by_pool: dict[ScheduledPool, Claim] = {}
        self.wanted = self.unserved = self.turns = self.changes = 0
        self._by_rank: Ranking[ScheduledPool, tuple[float, ...]] = Ranking()
        self._by_time: Ranking[ScheduledPool, tuple[float, ...]] = Ranking()

    def put(self, claim: Claim) -> None:
        """Set what a pool wants, replacing its previous claim."""
        old = self.by_pool.get(claim.pool)
        self.wanted += claim.wanted - (old.wanted if old else 0)
        if old is not None and old.rank == claim.rank:
            old.wanted, old.key = claim.wanted, claim.key
            return
        self.changes += 1
        self.by_pool[claim.pool] = claim
        self._by_rank.put(claim.pool, claim.rank)
        self.unserved -= old is not None and old.since is not None
        if claim.since is None:
            self._by_time.drop(claim.pool)
        else:
            self.unserved += 1
            self._by_time.put(claim.pool, (claim.overdue_at, claim.since))

    def drop(self, pool: ScheduledPool) -> None:
        """Remove the claim of *pool*."""
        claim = self.by_pool.pop(pool, None)
        if claim is not None:
            self.changes += 1
            self.wanted -= claim.wanted
            self.unserved -= claim.since is not None
            self._by_rank.drop(pool)
            self._by_time.drop(pool)

    def wanted_besides(self, pool: ScheduledPool, promised: int) -> int:
        """How many connections other pools than *pool* surely want, if so many are *promised*.

        If places are promised, it is unknown who gets them, so only pools without any connection
        count.
        """
        own = self.by_pool.get(pool)
        wanted = self.wanted - (own.wanted if own else 0)
        return min(wanted, self.unserved) if promised > 0 else wanted

    def note_turn(self) -> None:
        """Note that a claim got its connection, so that another one is first."""
        self.turns += 1

    @property
    def first(self) -> Claim | None:
        """The claim of the lowest rank; of equals, the oldest."""
        first = self._by_rank.first
        return self.by_pool[first[0]] if first else None

    @property
    def longest_overdue(self) -> Claim | None:
        """The claim that is or becomes overdue first, of a pool without a connection."""
        first = self._by_time.first
        return self.by_pool[first[0]] if first else None
