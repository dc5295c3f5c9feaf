"""One server's connections, divided among all of its pools.

The sum of open, connecting and closing connections never exceeds the limit. When nothing is
left, idle connections of other pools are taken back, the least recently used pool first and
never below its min_size; when all are busy, a pool holding more than its share gives up the
next connection that comes back. Nothing here awaits: pools do the opening and closing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol


class Claimant(Protocol):
    """What the budget needs to know of a pool."""

    def pump(self) -> None:
        """Serve its waiters, now that something may have become possible."""

    def shed_idle(self) -> bool:
        """Begin to close its oldest idle connection above min_size; False if it has none."""

    @property
    def unserved(self) -> int:
        """How many connections it would open if the budget had them."""

    @property
    def neediest_share(self) -> float | None:
        """The share its next waiter's tenant would have once served; None if nobody waits."""


class ConnectionBudget:
    """At most *limit* connections on one server."""

    def __init__(self, limit: int = 0) -> None:
        """Allow *limit* connections; 0 until the server was asked."""
        self._limit = limit
        self._used = 0
        self._closing = 0
        self._starving: OrderedDict[Claimant, None] = OrderedDict()
        self._with_idle: OrderedDict[Claimant, None] = OrderedDict()

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
        if not self.is_exhausted:
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
        for donor in list(self._with_idle):
            while missing > 0 and donor not in self._starving and donor.shed_idle():
                missing -= 1
            if missing <= 0:
                return

    def must_yield(self, holder: Claimant) -> bool:
        """Whether the connection that *holder* has just got back should go to another pool.

        Only if a tenant there would still hold less, once served, than the one *holder* would
        serve next: otherwise the connection would wander back and forth.
        """
        mine = holder.neediest_share
        if mine is None or self._missing() <= 0:
            return False
        shares = (claimant.neediest_share for claimant in self._starving if claimant is not holder)
        return any(share is not None and share < mine for share in shares)

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
        """Offer what is free, the smallest share first."""
        while self._starving and not self.is_exhausted:
            claimant = min(self._starving, key=_share_or_last)
            del self._starving[claimant]
            claimant.pump()


def _share_or_last(claimant: Claimant) -> float:
    share = claimant.neediest_share
    return float("inf") if share is None else share
