"""One server's connections, divided among all of its pools.

The sum of open, connecting and closing connections never exceeds the limit. When nothing is
left, idle connections of other pools are taken back, the least recently used pool first and
never below its min_size, and freshly opened ones only if there are no others; when all are
busy, a pool holding more than its share gives up the next connection that comes back. What is
on its way to a pool counts as its own. Nothing here awaits: pools do the opening and closing.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heapreplace
from typing import Protocol


class Claimant(Protocol):
    """What the budget needs to know of a pool."""

    def pump(self) -> None:
        """Serve its waiters, now that something may have become possible."""

    def shed_idle(self, *, fresh: bool) -> bool:
        """Begin to close its longest unused idle connection above min_size; False if it has none.

        One that was opened a moment ago is taken only if *fresh* ones may be.
        """

    @property
    def unserved(self) -> int:
        """How many connections it would open if the budget had them."""

    def share_after(self, promised: int) -> float | None:
        """The share its next waiter's tenant would have once served; None if nobody waits.

        Connections being opened, and so many that are *promised*, have found their waiters before.
        """


class ConnectionBudget:
    """At most *limit* connections on one server."""

    def __init__(self, limit: int = 0) -> None:
        """Allow *limit* connections; 0 until the server was asked."""
        self._limit = limit
        self._used = 0
        self._closing = 0
        self._starving: OrderedDict[Claimant, None] = OrderedDict()
        self._with_idle: OrderedDict[Claimant, None] = OrderedDict()
        # Whose turn it is to take the next free place while others want one too.
        self._turn: Claimant | None = None

    @property
    def limit(self) -> int:
        """Most connections of all pools together."""
        return self._limit

    @property
    def used(self) -> int:
        """Connections open, connecting or closing."""
        return self._used

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no connection left to take."""
        return self._used >= self._limit

    @property
    def is_contended(self) -> bool:
        """Whether some pool wants a connection and could not have it."""
        return bool(self._starving)

    def set_limit(self, limit: int) -> None:
        """Change the limit; connections above it are not cut, but none is opened."""
        self._limit = limit
        self._serve_starving()
        self.reclaim()

    def take(self, claimant: Claimant) -> bool:
        """Reserve one connection, or remember that *claimant* wants one and make room."""
        if not self.is_exhausted and (not self._starving or self._turn is claimant):
            self._turn = None
            self._used += 1
            self._starving.pop(claimant, None)
            return True
        self._starving[claimant] = None
        self.reclaim()
        return False

    def closing(self) -> None:
        """A reserved connection is being closed and will be given back soon."""
        self._closing += 1

    def closed(self) -> None:
        """What was announced with `closing` is gone from the server."""
        self._closing -= 1
        self.give_back()

    def give_back(self) -> None:
        """A reserved connection is not there (any more)."""
        self._used -= 1
        self._serve_starving()

    def used_now(self, claimant: Claimant) -> None:
        """*claimant* has idle connections and has just used one: it is the last to be reclaimed."""
        self._with_idle[claimant] = None
        self._with_idle.move_to_end(claimant)

    def forget(self, claimant: Claimant) -> None:
        """*claimant* has closed."""
        self._starving.pop(claimant, None)
        self._with_idle.pop(claimant, None)

    def reclaim(self) -> None:
        """Close as many idle connections of other pools as are wanted and not on their way."""
        missing = self._missing()
        if missing <= 0:
            return
        donors = [donor for donor in self._with_idle if donor not in self._starving]
        for fresh in (False, True):
            for donor in donors:
                while missing > 0 and donor.shed_idle(fresh=fresh):
                    missing -= 1

    def must_yield(self, holder: Claimant) -> bool:
        """Whether the connection that *holder* has just got back should go to another pool.

        Only if a tenant there would still hold less, once served, than the one *holder* would
        serve next: otherwise the connection would wander back and forth.
        """
        mine = holder.share_after(0)
        if mine is None or self._missing() <= 0:
            return False
        theirs = self._smallest_share(without=holder)
        return theirs is not None and theirs < mine

    def _smallest_share(self, *, without: Claimant) -> float | None:
        """The smallest share among the starving, once all that closes now has come to them."""
        promised = self._closing + self._limit - self._used
        order = [
            (share, place, claimant, 0)
            for place, claimant in enumerate(self._starving)
            if claimant is not without and (share := claimant.share_after(0)) is not None
        ]
        heapify(order)
        while order:
            share, place, claimant, got = order[0]
            if promised <= 0:
                return share
            promised -= 1
            got += 1
            more = claimant.share_after(got) if got < claimant.unserved else None
            if more is None:
                heappop(order)
            else:
                heapreplace(order, (more, place, claimant, got))
        return None

    def _wanted(self) -> int:
        """Connections that are wanted and could not be had; who wants none any more is dropped."""
        for claimant in [claimant for claimant in self._starving if not claimant.unserved]:
            del self._starving[claimant]
        return sum(claimant.unserved for claimant in self._starving)

    def _missing(self) -> int:
        """Connections that have yet to begin to close until all that are wanted can be opened."""
        wanted = self._wanted()
        return wanted + self._used - self._limit - self._closing if wanted else 0

    def _serve_starving(self) -> None:
        """Offer what is free, one place at a time, the smallest share first."""
        while self._starving and not self.is_exhausted:
            claimant = self._turn = min(self._starving, key=_share_or_last)
            del self._starving[claimant]
            claimant.pump()
        self._turn = None


def _share_or_last(claimant: Claimant) -> float:
    share = claimant.share_after(0)
    return float("inf") if share is None else share
