"""Decides who is served next, even without free budget, and which connections open or close.

`decide` and `kept_until` are pure. They read a pool and its server's budget, change nothing, and
return what to do next. `PolicyExecutor` does that, and asks again until nothing is left to do.
Nothing here awaits, reads a clock or calls a pool.

All pools of a server share its budget. If they want more connections than there are, they take
turns by time, see `app.domain.time_sharing`; the tenant with the least recent use comes first. An
idle connection is kept only as long as its tenant usually takes to come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf

from app.domain.connection_openings import openings_wanted
from app.domain.pool import PoolState
from app.domain.time_sharing import longest_kept, most_moves, shortest_slice, slice_seconds
from app.pools.connection import PooledConnection
from app.pools.recent_use import use_class, uses_much_less
from app.pools.scheduling.budget import ConnectionBudget
from app.pools.scheduling.claims import Claim
from app.pools.scheduling.scheduled_pool import ScheduledPool
from app.pools.scheduling.waiter import Waiter
from app.pools.tenant_state import TenantState

# One of this many turns goes to the claim with the lowest rank, however long others wait.
_TURNS = 3

_READY, _WARMING_UP = PoolState.READY, PoolState.WARMING_UP


@dataclass(frozen=True, slots=True)
class Actions:
    """What to do next; false if there is nothing to do.

    Attributes:
        close: idle connections to close, each with its pool.
        serve: a waiter, and the idle connection of its pool that it gets.
        open: the pool that opens a connection.
        take: an idle connection to close for another pool, and its present pool.
        recheck_at: when to decide again if nothing happens until then.
    """

    close: Sequence[tuple[ScheduledPool, PooledConnection]] = ()
    serve: tuple[Waiter, PooledConnection] | None = None
    open: ScheduledPool | None = None
    take: tuple[ScheduledPool, PooledConnection] | None = None
    recheck_at: float = inf

    def __bool__(self) -> bool:
        return bool(self.close or self.serve or self.open or self.take)


def decide(pool: ScheduledPool | None, budget: ConnectionBudget, now: float) -> Actions:
    """Decide what to do next, after a change in *pool*, or only in the *budget*.

    The first case that applies:

    1. The pool has more connections than it may have: its longest unused idle ones close.
    2. The pool has a waiter and an idle connection: the waiter gets the most recently used one. If
       that is broken, stale or too old, it closes instead.
    3. The budget's limit was lowered, and more connections are open: an idle one closes, even if
       its pool still keeps it, in the same order as in 5.
    4. Pools want connections, and a place in the budget and a connect slot are free: the first
       claim's pool opens one. A large claim, of a pool that already has its fair share, waits until
       no slot is in use: otherwise such claims, which repeat, would delay other pools' logins.
    5. Only a slot is free, and too few places will become free: an idle connection of another pool
       closes. It is the one whose time for its own tenant ended first; none is taken below a
       min_size, see `floor_of`.

    A connection that comes back while its pool has work is the sixth case: see `kept_until`.
    """
    if pool is not None and (actions := _within(pool, now)):
        return actions
    if budget.is_over and not budget.is_frozen:
        return _beyond_limit(budget)
    return _among_pools(budget, now)


def _within(pool: ScheduledPool, now: float) -> Actions:
    """Cases 1 and 2."""
    own = pool.connections
    if not own.idle:
        return Actions()
    allowed = pool.most if lends(pool) else 0
    if (surplus := own.live + own.connecting - allowed) > 0:
        return Actions(close=[(pool, each) for each in islice(own.idle, surplus)])
    if not lends(pool) or (waiter := pool.waiters.next()) is None:
        return Actions()
    if own.is_current(own.idle[-1], now):
        return Actions(serve=(waiter, own.idle[-1]))
    return Actions(close=[(pool, own.idle[-1])])


def _among_pools(budget: ConnectionBudget, now: float) -> Actions:
    """Cases 4 and 5."""
    claim = first_claim(budget, now)
    if claim is None or budget.connect_slots.free <= 0:
        return Actions()
    if budget.connect_slots.busy and _is_large(claim, budget):
        return Actions()
    if budget.free > 0:
        return Actions(open=claim.pool)
    if budget.is_frozen or budget.claims.wanted <= budget.promised:
        return Actions()
    return _from_another(claim, budget, now)


def _from_another(claim: Claim, budget: ConnectionBudget, now: float) -> Actions:
    """Case 5."""
    if (first := budget.spare.first) is None or first[0] is claim.pool:
        return Actions()
    donor, kept_until = first
    oldest = donor.connections.idle[0]
    if oldest.last_user is not None and uses_much_less(oldest.last_user.key(now), claim.key):
        kept_until = spare_at(donor, budget, from_large=True)
    if kept_until <= now:
        return Actions(take=(donor, oldest))
    return Actions(recheck_at=kept_until)


def _beyond_limit(budget: ConnectionBudget) -> Actions:
    """Case 3."""
    if (first := budget.spare.first) is None:
        return Actions()
    donor, _ = first
    return Actions(close=[(donor, donor.connections.idle[0])])


def _is_large(claim: Claim, budget: ConnectionBudget) -> bool:
    """Whether the claiming pool already has its fair share of the connections, and at least two."""
    return claim.key < inf and claim.pool.connections.in_use >= max(2.0, budget.fair_share)


def kept_until(
    pool: ScheduledPool, connection: PooledConnection, budget: ConnectionBudget, now: float
) -> float:
    """Decide until when *pool* keeps a *connection* that has just come back; not after *now*: no.

    It closes if more connections are open than allowed, unless the pool has too few. Otherwise a
    pool without work for it keeps it idle, and case 5 applies. Work means a caller that waits, or
    one expected to come back at once. With work, it closes for the first claim if

    * a connect slot is free, and less than a share `MOVING` of all connections is being moved;
    * the claim's pool has no connection, or its tenant has used less for its weight;
    * the slice is over: the tenant's fair share of a round. A small claim, of a tenant that has
      used less than half as much, waits only for the end of the shortest slice.

    Returns monotonic seconds; inf without a limit in time. While claims stay the same, the end may
    come a little earlier, by less than a slice.
    """
    if budget.is_over:
        is_kept = budget.is_frozen or pool.connections.live < floor_of(pool, budget)
        return inf if is_kept else -inf
    claim, waiter = first_claim(budget, now), pool.waiters.next()
    user = connection.last_user if waiter is None else waiter.tenant_state
    if claim is None or user is None or not _may_lose(pool, claim, budget):
        return inf
    if waiter is None and not kept_seconds(pool, budget):
        return inf
    key = user.key(now)
    if claim.since is None and claim.key >= key:
        return inf
    if uses_much_less(claim.key, key):
        slice_ = shortest_slice(budget.move_seconds, user.weight / budget.mean_weight)
    else:
        slice_ = slice_of(user, budget)
    # Connections come back, and slots become free, some time after the end of a slice. So the slice
    # ends earlier by the recent mean of that time; otherwise small slices would grow by a larger
    # part than large ones.
    early = min(budget.overrun, slice_ - budget.move_seconds)
    return connection.opened_at + slice_ - max(0.0, early)


def _may_lose(pool: ScheduledPool, claim: Claim, budget: ConnectionBudget) -> bool:
    """Whether *pool*, which has work for all its connections, may lose one to *claim* now."""
    promised = max(0, budget.promised)
    return (
        claim.pool is not pool
        and claim.key < inf
        and not budget.is_frozen
        and budget.connect_slots.busy < min(budget.connect_slots.limit, most_moves(budget.limit))
        and budget.claims.wanted_besides(pool, promised) > promised
        and pool.connections.live >= floor_of(pool, budget)
    )


def first_claim(budget: ConnectionBudget, now: float) -> Claim | None:
    """Return the claim whose turn it is at *now*; None if there is none.

    It is the one with the lowest rank, see `claim_of`. But in most turns it is an overdue one, if
    there is any, the longest overdue first. So nobody is starved, not even by others that always
    used less.
    """
    claims = budget.claims
    if claims.turns % _TURNS:
        late = claims.longest_overdue
        if late is not None and late.overdue_at < now:
            return late
    return claims.first


def claim_of(pool: ScheduledPool, wanted: int, budget: ConnectionBudget, now: float) -> Claim:
    """The claim of *pool* for *wanted* more connections.

    Less use per weight comes first; each connection being opened counts as a lease. Among tenants
    with about the same use, the pool that is opening fewer connections comes first, then the one
    without any that has waited longest. In a random order, one of many would wait for long; and
    with this order few changes move a claim.

    Its turn should come once in the time of which its slice is its fair share: usually a round.
    """
    own, waiter = pool.connections, pool.waiters.next()
    if waiter is None:
        return Claim(pool, wanted, inf, (inf, own.connecting, inf))
    user = waiter.tenant_state
    key = user.key(now, more=own.connecting)
    use = use_class(key)
    if own.live or own.connecting:
        return Claim(pool, wanted, key, (use, own.connecting, inf))
    due = min(1.0, budget.fair_share * user.weight)
    turn = slice_of(user, budget) / due if due else inf
    return Claim(pool, wanted, key, (use, 0, waiter.since), waiter.since, waiter.since + turn)


def slice_of(user: TenantState, budget: ConnectionBudget) -> float:
    """Seconds that *user* may keep a connection while others wait; see `slice_seconds`."""
    due, relative_weight = budget.fair_share * user.weight, user.weight / budget.mean_weight
    return slice_seconds(
        due, budget.move_seconds, relative_weight, acquire_timeout=budget.acquire_timeout
    )


def floor_of(pool: ScheduledPool, budget: ConnectionBudget) -> int:
    """The connections that *pool* opens without callers, and that are not taken from it.

    While the min_size of all pools does not fit into what nodes leave of the budget, there are
    none: if some pools kept theirs, callers of the others would never get one.
    """
    return pool.size.min_size if budget.keeps_min_size else 0


def has_spare(pool: ScheduledPool, budget: ConnectionBudget) -> bool:
    """Whether *pool* has an idle connection beyond those that it keeps."""
    return bool(pool.connections.idle) and pool.connections.live > floor_of(pool, budget)


def spare_at(pool: ScheduledPool, budget: ConnectionBudget, *, from_large: bool = False) -> float:
    """Until when *pool* keeps its longest unused idle connection; see `kept_seconds`."""
    kept = kept_seconds(pool, budget, from_large=from_large)
    return pool.connections.idle[0].idle_since + kept


def kept_seconds(
    pool: ScheduledPool, budget: ConnectionBudget, *, from_large: bool = False
) -> float:
    """How long *pool* keeps an idle connection for its own callers while others wait.

    It keeps it as long as they usually take to come back, but not at all if that time is unknown or
    longer than a few moves. With *from_large*, if only a tenant that uses more than twice as much
    wants it, a longer time is cut to a few moves: so the connection stays ready for the small
    tenant instead of going there and back.
    """
    returns, longest = pool.connections.returns, longest_kept(budget.move_seconds)
    if returns.mean and (from_large or returns.mean <= longest):
        return min(returns.bound, longest)
    return 0.0


def lends(pool: ScheduledPool) -> bool:
    """Whether *pool* lends connections in its present state."""
    return pool.state is _READY or pool.state is _WARMING_UP


def shortfall(pool: ScheduledPool, budget: ConnectionBudget, now: float) -> int:
    """How many connections *pool* would open now if the budget had them."""
    if not (lends(pool) and pool.can_open):
        return 0
    own = pool.connections
    room = min(pool.most - own.open, budget.connect_slots.most_of_one - own.connecting)
    if room <= 0:
        return 0
    if pool.is_failing:
        # One attempt shows whether the failure is over: more would hold places that others can use.
        room = min(room, 1 - own.connecting)
    floor = floor_of(pool, budget)
    if pool.state is _WARMING_UP and not budget.is_exhausted:
        # Nothing is taken from other pools only to fill a pool up.
        floor = max(floor, pool.size.warmup_size)
    wanted = wanted_for_waiters(pool, budget, now)
    return max(0, min(max(wanted, floor - own.live - own.connecting), room))


def wanted_for_waiters(pool: ScheduledPool, budget: ConnectionBudget, now: float) -> int:
    """How many connections *pool* should open for its waiters; see `openings_wanted`."""
    own = pool.connections
    waiting = pool.waiters.servable - len(own.idle)
    if waiting <= 0 or (waiter := pool.waiters.next()) is None:
        return 0
    return openings_wanted(
        waiting,
        own.connecting,
        own.in_use,
        hold=own.hold,
        connect=budget.connect_seconds,
        longest_wait=now - waiter.since,
        busy_for=now - own.idle_found_at,
    )
