"""One server's connections, divided among all of its pools.

The sum of open, connecting and closing connections never exceeds the limit. When nothing is
left, idle connections of other pools are taken back, the least recently used pool first and
never below its min_size, and freshly opened ones only if there are no others; when all are
busy, a pool holding more than its share gives up the next connection that comes back. What is
on its way to a pool counts as its own. Nothing here awaits: pools do the opening and closing.

While pools want more than there is, a reserve is left to modest claims, those of tenants who
would hold no more than one connection for each unit of their weight. A modest claim then
finds a place free, and the closing that makes the next one free happens behind it; without
it, each short lease of a small tenant would cost two logins, its own and that of the flooding
pool that takes the connection back. The reserve belongs to pools used within the last second:
the latest few keep their last idle connection, and a few places stay free, since modest claims
come several at a time now and then. So it grows only to what they use, at most to a share of the
limit; who is alone, or among pools that all want more, has everything. The shares were
measured: with a reserve of 3 of 20 and one place free, fifty small tenants beside a flood waited
20 to 60 ms longer (p99), with 8 and three free about 15 ms, and the flood leased a tenth less.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from heapq import heapify, heappop, heapreplace
from typing import Protocol

# A server with so few connections has hardly any to spare. How much of those beyond is left to
# modest claims at most, how much of all stays free for them, and for how many seconds after its
# last use a pool counts for that.
_FEW = 4
_RESERVED = 0.5
_FREE = 0.15
_LATELY = 1.0


class Clock(Protocol):
    """What the budget needs of an event loop."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object:
        """Call back in *delay* seconds."""


class BudgetClient(Protocol):
    """What the budget needs to know of a pool."""

    def dispatch(self) -> None:
        """Serve its waiters, now that something may have become possible."""

    def evict_idle(self, *, fresh: bool, keep: int = 0) -> bool:
        """Begin to close its longest unused idle connection above min_size; False if it has none.

        One that was opened a moment ago is taken only if *fresh* ones may be, and none of the
        last that it is to *keep*.
        """

    @property
    def shortfall(self) -> int:
        """How many connections it would open if the budget had them."""

    def share_after(self, promised: int) -> float | None:
        """The share its next waiter's tenant would have once served; None if nobody waits.

        Connections being opened, and so many that are *promised*, have found their waiters before.
        """


class ConnectionBudget:
    """At most *limit* connections on one server."""

    def __init__(self, limit: int = 0, *, clock: Clock | None = None) -> None:
        """Allow *limit* connections, 0 until the server was asked; the loop is the *clock*."""
        self._limit = limit
        self._used = 0
        self._closing = 0
        self._clock = clock
        self._starving: OrderedDict[BudgetClient, None] = OrderedDict()
        # When each pool last had a connection come to rest; the latest is the last.
        self._last_use: OrderedDict[BudgetClient, float] = OrderedDict()
        # Whose turn it is to take the next free place while others want one too.
        self._turn: BudgetClient | None = None
        self._will_look = False
        self._is_frozen = False

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

    def freeze(self, *, frozen: bool) -> None:
        """Take nothing from any pool while nothing can be opened in its place."""
        thawed, self._is_frozen = self._is_frozen and not frozen, frozen
        if thawed:
            self.reclaim()

    def take(self, claimant: BudgetClient) -> bool:
        """Reserve one connection, or remember that *claimant* wants one and make room."""
        if self._is_next(claimant):
            self._turn = None
            self._used += 1
            self._starving.pop(claimant, None)
            if self._starving:
                # The place just taken may have been the reserve's.
                self.reclaim()
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

    def used_now(self, claimant: BudgetClient, now: float) -> None:
        """A connection of *claimant* has come to rest *now*: it is the last to be reclaimed."""
        self._last_use[claimant] = now
        self._last_use.move_to_end(claimant)

    def forget(self, claimant: BudgetClient) -> None:
        """*claimant* has closed."""
        self._starving.pop(claimant, None)
        self._last_use.pop(claimant, None)

    def reclaim(self) -> None:
        """Close as many idle connections of other pools as are wanted and not on their way."""
        missing = self._missing()
        if missing <= 0 or self._is_frozen:
            return
        modest = self._missing_for_modest()
        lately = self._used_lately()
        keepers = set(lately[: self._most_reserved - self._owed()])
        donors = [donor for donor in self._last_use if donor not in self._starving]
        for fresh in (False, True):
            for donor in donors:
                while missing > 0 and donor.evict_idle(fresh=fresh, keep=int(donor in keepers)):
                    missing -= 1
                    modest -= 1
        for donor in reversed(lately):
            while modest > 0 and donor.evict_idle(fresh=True):
                missing -= 1
                modest -= 1
        if missing > 0 and lately:
            self._look_again_later()

    def must_yield(self, holder: BudgetClient) -> bool:
        """Whether the connection that *holder* has just got back should go to another pool.

        Only if a tenant there would still hold less, once served, than the one *holder* would
        serve next, lest the connection wander back and forth; or if the reserve lacks its place.
        """
        mine = holder.share_after(0)
        if mine is None or self._is_frozen or self._missing() <= 0:
            return False
        if mine > 1 and self._owed() > self._promised():
            return True
        theirs = self._smallest_share(without=holder)
        return theirs is not None and theirs < mine

    def _smallest_share(self, *, without: BudgetClient) -> float | None:
        """The smallest share among the starving, once all that closes now has come to them."""
        promised = self._promised() - self._owed()
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
            more = claimant.share_after(got) if got < claimant.shortfall else None
            if more is None:
                heappop(order)
            else:
                heapreplace(order, (more, place, claimant, got))
        return None

    def _wanted(self) -> int:
        """Connections that are wanted and could not be had; who wants none any more is dropped."""
        for claimant in [claimant for claimant in self._starving if not claimant.shortfall]:
            del self._starving[claimant]
        return sum(claimant.shortfall for claimant in self._starving)

    def _missing(self) -> int:
        """Connections that have yet to begin to close until all that are wanted can be opened."""
        wanted = self._wanted()
        return wanted + self._owed() - self._promised() if wanted else 0

    def _missing_for_modest(self) -> int:
        """The same, with nothing but modest claims and the place that stays free for them."""
        wanted = 0
        for claimant in self._starving:
            got = 0
            while got < claimant.shortfall and is_small_claim(claimant.share_after(got)):
                got += 1
            wanted += got
        return wanted + self._owed() - self._promised()

    def _promised(self) -> int:
        """Places that are free, or will be without anybody's further doing."""
        return self._limit - self._used + self._closing

    # -- the reserve -------------------------------------------------------------------------

    @property
    def _most_reserved(self) -> int:
        return max_reserved(self._limit)

    def _used_lately(self) -> list[BudgetClient]:
        """Pools used a moment ago that have all they want, the latest first."""
        since = self._time.time() - _LATELY
        lately = []
        for claimant, at in reversed(self._last_use.items()):
            if at <= since:
                break
            if claimant not in self._starving:
                lately.append(claimant)
        return lately

    def _owed(self) -> int:
        """How many places stay free for the next modest claims, if there is any reserve."""
        if self._most_reserved == 1 or all(map(_claims_modestly, self._starving)):
            return 0
        return min(max(1, round(self._limit * _FREE)), len(self._used_lately()))

    def _is_free_for(self, claimant: BudgetClient) -> bool:
        free = self._limit - self._used
        return free > (0 if _claims_modestly(claimant) else self._owed())

    def _look_again_later(self) -> None:
        """Come back when the reserve may have become smaller: no event will tell."""
        if not self._will_look:
            self._will_look = True
            self._time.call_later(_LATELY, self._look_again)

    def _look_again(self) -> None:
        self._will_look = False
        self._serve_starving()
        self.reclaim()

    @property
    def _time(self) -> Clock:
        return self._clock or asyncio.get_running_loop()

    # -- who is next -------------------------------------------------------------------------

    def _is_next(self, claimant: BudgetClient) -> bool:
        """Whether *claimant* may take a free place now."""
        if not self._is_free_for(claimant):
            return False
        if self._turn is claimant:
            return True
        share = _share_or_last(claimant)
        others = (other for other in self._served_by_a_free_place() if other is not claimant)
        return all(share < _share_or_last(other) for other in others)

    def _serve_starving(self) -> None:
        """Offer what is free, one place at a time, the smallest share first."""
        while not self.is_exhausted and (able := self._served_by_a_free_place()):
            claimant = self._turn = min(able, key=_share_or_last)
            claimant.dispatch()
            if self._turn is claimant:  # it wants none any more
                self._starving.pop(claimant, None)
        self._turn = None
        if self._starving and not self.is_exhausted:
            self._look_again_later()

    def _served_by_a_free_place(self) -> list[BudgetClient]:
        return [claimant for claimant in self._starving if self._is_free_for(claimant)]


def max_reserved(limit: int) -> int:
    """The most connections of *limit* that are left to modest claims."""
    return max(1, round((limit - _FEW) * _RESERVED))


def is_small_claim(share: float | None) -> bool:
    """Whether a tenant with that *share* holds no more than one connection for its weight."""
    return share is not None and share <= 1


def _claims_modestly(claimant: BudgetClient) -> bool:
    return is_small_claim(claimant.share_after(0))


def _share_or_last(claimant: BudgetClient) -> float:
    share = claimant.share_after(0)
    return float("inf") if share is None else share
