"""The policy of all pools: who gets a connection, which are opened, and which are closed.

`dispatch` is pure. It reads a pool and its server's budget, changes nothing, and returns what to do
next; `Dispatcher` does that and asks again until nothing is left to do. Nothing here awaits, reads
a clock or calls a pool back.

All pools of a server share one budget. While pools want more than there is, a reserve is left to
small claims, those of tenants who would hold no more than one connection for each unit of their
weight. A small claim then finds a place free, and the closing that frees the next one happens
behind it; without the reserve, each short lease of a small tenant would cost two logins, its own
and that of the flooding pool that takes the connection back. The reserve belongs to pools used
within the last second: the latest few keep their last idle connection, and a few places stay free,
since small claims come several at a time. So it grows only to what they use, at most to a share of
the limit; a pool that is alone, or among pools that all flood, has everything. The shares were
measured: with a reserve of 3 of 20 and one place free, fifty small tenants beside a flood waited 20
to 60 ms longer (p99), with 8 and three free about 15 ms, and the flood leased a tenth less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from itertools import islice
from math import inf
from typing import Generic, NamedTuple, Protocol, TypeVar

from app.domain.pool import PoolSize, PoolState
from app.pools.budget import ConnectionBudget
from app.pools.connection import PooledConnection
from app.pools.waiters import Waiter

# A server with so few connections has hardly any to spare. How much of those beyond is left to
# small claims at most, how much of all stays free for them, and for how many seconds after its last
# use a pool counts for that.
_FEW = 4
_RESERVED = 0.5
_FREE = 0.15
RECENT = 1.0
# A connection younger than this, in seconds, is fresh: opening it has not paid yet.
_FRESH = 1.0

_READY, _WARMING_UP = PoolState.READY, PoolState.WARMING_UP


class PoolConnections(Protocol):
    """What the policy reads of a pool's connections; see `Connections`."""

    connecting: int
    """How many are being opened."""

    undoing_prefetch: int
    """How many are about to be idle."""

    @property
    def idle(self) -> Sequence[PooledConnection]:
        """Unused ones, the longest unused first."""

    @property
    def live(self) -> int:
        """How many work: idle, leased or being checked."""

    @property
    def open(self) -> int:
        """How many the server may see: live ones, and those coming or going."""

    def is_current(self, connection: PooledConnection, now: float) -> bool:
        """Whether *connection* is neither gone, nor stale, nor too old."""


class PoolWaiters(Protocol):
    """What the policy reads of a pool's waiters; see `WaitQueue`."""

    @property
    def servable(self) -> int:
        """How many could be served at once if there were connections enough."""

    def next(self) -> Waiter | None:
        """The waiter to serve now."""

    def share_after(self, served: int) -> float | None:
        """The share of the next waiter's tenant, served after *served* others."""


class PoolFacts(Protocol):
    """What the policy reads of a pool."""

    size: PoolSize
    state: PoolState

    @property
    def connections(self) -> PoolConnections:
        """Its connections."""

    @property
    def waiters(self) -> PoolWaiters:
        """Its waiters."""

    @property
    def can_open(self) -> bool:
        """Whether connections may be opened: the server is available, and no backoff runs."""

    @property
    def is_failing(self) -> bool:
        """Whether the latest attempt to open a connection failed."""


P = TypeVar("P", bound=PoolFacts)


@dataclass(frozen=True, slots=True)
class Actions(Generic[P]):
    """What to do next; false when there is nothing.

    Attributes:
        close: idle connections to close, each with its pool.
        serve: a waiter, and the idle connection of its pool that it gets.
        open: the pool that opens a connection, and whether its login goes before others'.
        recheck: whether to ask again in `RECENT` seconds, when the reserve may be smaller.
    """

    close: Sequence[tuple[P, PooledConnection]] = ()
    serve: tuple[Waiter, PooledConnection] | None = None
    open: tuple[P, bool] | None = None
    recheck: bool = False

    def __bool__(self) -> bool:
        return bool(self.close or self.serve or self.open)


def dispatch(pool: P | None, budget: ConnectionBudget[P], now: float) -> Actions[P]:
    """What to do next, after something has changed in *pool*, or in the *budget* only.

    The first of these cases that applies:

    1. The pool has more connections than it may: its longest unused idle ones close.
    2. The pool has a waiter and an idle connection: the waiter gets the one used last. If that is
       gone, stale or too old, it closes instead.
    3. A place in the budget is free, and pools want one: the pool with the smallest share opens a
       connection, ties go to the one that wants longest. Unless its claim is small, the reserve
       stays free.
    4. Pools want more places than are free or becoming free: idle connections of other pools close,
       the least recently used pool first, none below a min_size, fresh ones only if there are no
       others, and not the last one of a pool that the reserve protects.
    5. Small claims want more than that: the protected ones close too, in the same order.
    """
    if pool is not None and (actions := _within(pool, now)):
        return actions
    return _among_pools(budget, now)


def _within(pool: P, now: float) -> Actions[P]:
    """Cases 1 and 2."""
    own = pool.connections
    if not own.idle:
        return Actions()
    allowed = pool.size.max_size if lends(pool) else 0
    if (surplus := own.live + own.connecting - allowed) > 0:
        return Actions(close=[(pool, each) for each in islice(own.idle, surplus)])
    if not lends(pool) or (waiter := pool.waiters.next()) is None:
        return Actions()
    if own.is_current(own.idle[-1], now):
        return Actions(serve=(waiter, own.idle[-1]))
    return Actions(close=[(pool, own.idle[-1])])


def _among_pools(budget: ConnectionBudget[P], now: float) -> Actions[P]:
    """Cases 3 to 5."""
    claims = _claims(budget)
    if not claims:
        return Actions()
    recent = _recently_used(budget, now)
    reserved = _reserved(budget, claims, recent)
    able = [each for each in claims if budget.free > (0 if is_small(each.share) else reserved)]
    if able:
        first = min(able, key=_order)
        return Actions(open=(first.pool, is_small(first.share) and not first.pool.is_failing))
    if budget.is_frozen:
        return Actions()
    missing = _missing(budget, claims, reserved)
    protected = recent[: max_reserved(budget.limit) - reserved]
    if close := list(islice(_spare(budget, protected, now), max(0, missing))):
        return Actions(close=close)
    small_missing = _missing_for_small(budget, claims, reserved)
    if close := list(islice(_last_idle(reversed(recent)), max(0, small_missing))):
        return Actions(close=close)
    return Actions(recheck=budget.free > 0 or (missing > 0 and bool(recent)))


def keeps(pool: P, budget: ConnectionBudget[P], now: float) -> bool:
    """Whether *pool* keeps a connection that has just come back; if not, it closes for another.

    It closes only if a tenant of the other pool would still hold less, once served, than the one
    that *pool* would serve next, or the connection would wander back and forth; or if the reserve
    lacks its place.
    """
    mine = share_after(pool, 0)
    if mine is None or budget.is_frozen:
        return True
    claims = _claims(budget)
    reserved = _reserved(budget, claims, _recently_used(budget, now))
    if _missing(budget, claims, reserved) <= 0:
        return True
    if not is_small(mine) and reserved > budget.promised:
        return False
    others = [each for each in claims if each.pool is not pool]
    theirs = _share_beyond(budget.promised - reserved, others)
    return theirs is None or theirs >= mine


def lends(pool: PoolFacts) -> bool:
    """Whether *pool* hands out connections in its state."""
    return pool.state is _READY or pool.state is _WARMING_UP


def shortfall(pool: P, budget: ConnectionBudget[P]) -> int:
    """How many connections *pool* would open now if the budget had them."""
    if not (lends(pool) and pool.can_open):
        return 0
    size, own = pool.size, pool.connections
    room = size.max_size - own.open
    if room <= 0:
        return 0
    if pool.is_failing:
        # One attempt shows whether it is over: many would hold places that others can use.
        room = min(room, 1 - own.connecting)
    floor = size.min_size
    if pool.state is _WARMING_UP and not budget.is_exhausted:
        # Nothing is taken from other pools only to be warm.
        floor = max(floor, size.warmup_size)
    wanted = max(
        pool.waiters.servable - len(own.idle) - own.connecting - own.undoing_prefetch,
        floor - own.live - own.connecting,
    )
    return max(0, min(wanted, room))


def share_after(pool: PoolFacts, promised: int) -> float | None:
    """The share of the tenant of *pool*'s next waiter, once served; None without waiters.

    Connections that are coming, and *promised* ones, have found their waiters before.
    """
    own = pool.connections
    return pool.waiters.share_after(own.connecting + own.undoing_prefetch + promised)


def is_small(share: float | None) -> bool:
    """Whether a tenant with that *share* holds no more than one connection for its weight."""
    return share is not None and share <= 1


def max_reserved(limit: int) -> int:
    """The most connections of *limit* that are left to small claims."""
    return max(1, round((limit - _FEW) * _RESERVED))


class _Claim(NamedTuple, Generic[P]):
    """What a pool wants: so many connections, and the share of its next waiter, if there is one."""

    pool: P
    wanted: int
    share: float | None


def _claims(budget: ConnectionBudget[P]) -> list[_Claim[P]]:
    """What the unsatisfied pools want, the longest unsatisfied first."""
    return [
        _Claim(pool, wanted, share_after(pool, 0))
        for pool in budget.unsatisfied
        if (wanted := shortfall(pool, budget))
    ]


def _order(one: _Claim[P]) -> float:
    """By which claims are ordered: a pool without waiters is the last."""
    return inf if one.share is None else one.share


def _recently_used(budget: ConnectionBudget[P], now: float) -> list[P]:
    """Pools used a moment ago that have all they want, the latest first."""
    recent = []
    for pool, at in reversed(budget.last_use.items()):
        if at <= now - RECENT:
            break
        if pool not in budget.unsatisfied:
            recent.append(pool)
    return recent


def _reserved(budget: ConnectionBudget[P], claims: Sequence[_Claim[P]], recent: Sequence[P]) -> int:
    """How many places stay free for the next small claims, if there is any reserve."""
    if max_reserved(budget.limit) == 1 or all(is_small(each.share) for each in claims):
        return 0
    return min(max(1, round(budget.limit * _FREE)), len(recent))


def _missing(budget: ConnectionBudget[P], claims: Sequence[_Claim[P]], reserved: int) -> int:
    """Connections that have yet to begin to close until all that are wanted can be opened."""
    wanted = sum([each.wanted for each in claims])
    return wanted + reserved - budget.promised if wanted else 0


def _missing_for_small(
    budget: ConnectionBudget[P], claims: Sequence[_Claim[P]], reserved: int
) -> int:
    """The same, with nothing but small claims and the places that stay free for them."""
    wanted = 0
    for each in claims:
        got = 0
        while got < each.wanted and is_small(share_after(each.pool, got)):
            got += 1
        wanted += got
    return wanted + reserved - budget.promised


def _share_beyond(promised: int, claims: Sequence[_Claim[P]]) -> float | None:
    """The smallest share among *claims* once *promised* places have come to them."""
    order = [
        (each.share, place, each, 0) for place, each in enumerate(claims) if each.share is not None
    ]
    heapify(order)
    while order:
        share, place, each, got = order[0]
        if promised <= 0:
            return share
        promised -= 1
        got += 1
        more = share_after(each.pool, got) if got < each.wanted else None
        if more is None:
            heappop(order)
        else:
            heapreplace(order, (more, place, each, got))
    return None


def _spare(
    budget: ConnectionBudget[P], protected: Collection[P], now: float
) -> Iterator[tuple[P, PooledConnection]]:
    """Idle connections that can close for other pools, the first to close first."""
    donors = [pool for pool in budget.last_use if pool not in budget.unsatisfied]
    taken: Counter[P] = Counter()
    for fresh in (False, True):
        for pool in donors:
            own = pool.connections
            spare = own.live - max(pool.size.min_size, pool in protected)
            for connection in own.idle:
                if taken[pool] >= spare:
                    break
                if (connection.opened_at >= now - _FRESH) is fresh:
                    taken[pool] += 1
                    yield pool, connection


def _last_idle(donors: Iterator[P]) -> Iterator[tuple[P, PooledConnection]]:
    for pool in donors:
        own = pool.connections
        spare = own.live - pool.size.min_size
        for connection in islice(own.idle, max(0, spare)):
            yield pool, connection
