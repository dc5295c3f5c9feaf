"""How simulated pools take turns on a used-up budget: the rules of the real pools.

`app.pools` works on its own connections, waiters and tenants, which would be too slow for a
simulation of millions of requests. So this has the same rules and numbers, not the same code. `make
simulator-live` compares both.
"""

from math import inf, log2

from app.domain.time_sharing import ROUND, longest_kept, shortest_slice, slice_seconds
from app.simulator.simulated_pool import SimulatedPool

_MUCH_LESS = 0.5
# Nearly all callers come within this many times the mean time between two callers.
_NEARLY_ALL = 4.0


def order(pool: SimulatedPool, now: float) -> tuple[float, float]:
    """The sort key of pools that want a connection; the smallest comes first.

    With about the same use, pools without a connection are sorted by their wait.
    """
    use, since = _use(pool, now), inf
    if pool.waiting and not pool.open:
        since = pool.waiting[0][0]
    return float(round(log2(use))) if 0 < use < inf else use, since


def _use(pool: SimulatedPool, now: float) -> float:
    """The pool's recent use; negative if it is overdue."""
    if not pool.waiting:
        return inf
    if not pool.open and pool.waiting[0][0] < now - ROUND:
        return -inf
    return pool.use(now) or -inf


def kept_seconds(pool: SimulatedPool, move_seconds: float) -> float:
    """How long an idle connection is kept for its own callers while others wait.

    It is the time that they usually take to come back, but not longer than a few moves take.
    """
    longest = longest_kept(move_seconds)
    if pool.return_seconds is None or pool.return_seconds > longest:
        return 0.0
    return min(_NEARLY_ALL * pool.return_seconds, longest)


def keeps(
    pool: SimulatedPool,
    claim: SimulatedPool,
    now: float,
    *,
    fair_share: float,
    move_seconds: float,
    acquire_timeout: float,
) -> bool:
    """Whether *pool*, whose callers wait, keeps the connection that has just come back.

    It keeps it while it has used less per weight, if the *claim*'s pool has a connection. It also
    keeps it until its slice, the fair share of a round, is over; for a claim with much less use,
    only the shortest slice.
    """
    mine, theirs = pool.use(now), _use(claim, now)
    if claim.open and theirs >= mine:
        return True
    if theirs >= _MUCH_LESS * mine:
        due = fair_share * pool.weight
        slice_ = slice_seconds(due, move_seconds, acquire_timeout=acquire_timeout)
    else:
        slice_ = shortest_slice(move_seconds)
    return now < pool.opened[0] + slice_
