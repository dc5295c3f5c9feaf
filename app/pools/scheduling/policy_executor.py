"""Carries out the decisions of the scheduling policy; nothing else does.

Every change in a pool or a budget ends in a call of `run`. An action only starts something or wakes
a caller, so `run` never re-enters itself.
"""

from collections.abc import Iterable
from math import inf

from app.domain.connection_openings import SOON
from app.domain.time_sharing import ROUND
from app.pools.connection import PooledConnection
from app.pools.scheduling.budget import ConnectionBudget
from app.pools.scheduling.clock import Clock, LoopClock, Timer
from app.pools.scheduling.policy import (
    Actions,
    claim_of,
    decide,
    first_claim,
    has_spare,
    kept_seconds,
    kept_until,
    lends,
    shortfall,
    slice_of,
    spare_at,
)
from app.pools.scheduling.ranking import Ranking
from app.pools.scheduling.scheduled_pool import ScheduledPool
from app.pools.scheduling.waiter import Waiter

# More than the rounding error of a time.
_TICK = 0.001
# An idle connection that others want is looked at again no sooner than after so many seconds:
# usually its pool uses it before, so that most timers of single connections would be in vain.
_LOOK_AGAIN = 0.003


class PolicyExecutor:
    """Hands over, opens and closes the connections of one server's pools."""

    def __init__(self, budget: ConnectionBudget, clock: Clock | None = None) -> None:
        self.budget = budget
        self._clock = clock or LoopClock()
        # For which pool (None: no pool) to run again, and when. One timer at the earliest time
        # serves all.
        self._rechecks: Ranking[ScheduledPool | None, float] = Ranking()
        self._timer_at = inf
        self._timer: Timer | None = None
        budget.connect_slots.when_given_up(self.run)

    def run(self, pool: ScheduledPool | None = None) -> None:
        """Act on a change in *pool*, or only in the budget."""
        now, changed = self._clock.time(), pool
        while True:
            if changed is not None:
                self._note(changed, now)
            self._refresh(now, noted=changed)
            actions = decide(pool, self.budget, now)
            if not actions:
                break
            changed = self._carry_out(actions, pool)
        self._recheck_at(None, max(actions.recheck_at, now + _LOOK_AGAIN))

    def keep_min_size(self, pools: Iterable[ScheduledPool], *, keeps: bool) -> None:
        """Let *pools*, all of this server, keep their min_size, or let others have it by need."""
        self.budget.keep_min_size(keeps=keeps)
        for pool in pools:
            if pool.size.min_size:
                self.run(pool)

    def _carry_out(self, actions: Actions, pool: ScheduledPool | None) -> ScheduledPool | None:
        """Carry out *actions*; return the pool that they change."""
        slots, changed = self.budget.connect_slots, pool
        for changed, connection in actions.close:
            changed.connections.evict_idle(connection)
        if actions.serve and pool is not None:
            pool.serve(*actions.serve)
        if actions.open:
            changed = actions.open
            changed.connections.begin_open(slots.take())
            self.budget.claims.note_turn()
        if actions.take:
            changed, connection = actions.take
            changed.connections.evict_idle(connection, slots.take())
        return changed

    # These run at every lease, so they are cheap: they call `run` only if something may come of it.

    def awaits(self, pool: ScheduledPool, waiter: Waiter) -> bool:
        """Whether `run` may act for *pool* now that *waiter* waits."""
        own = pool.connections
        if own.idle or own.open >= pool.most:
            return bool(own.idle)
        if pool.waiters.next() is waiter:
            return True
        claim = self.budget.claims.by_pool.get(pool)
        wanted = shortfall(pool, self.budget, self._clock.time())
        return wanted != (claim.wanted if claim else 0)

    def served(self, pool: ScheduledPool) -> None:
        """Note that *pool* kept a connection for its next caller: it may want fewer now."""
        if pool in self.budget.unsatisfied:
            self._note(pool, self._clock.time())

    def rested(self, pool: ScheduledPool) -> None:
        """Note that *pool* kept a connection as idle: others may get it when its time is over."""
        kept = kept_seconds(pool, self.budget)
        if kept and pool not in self.budget.unsatisfied:
            now = self._clock.time()
            self.budget.spare.bring_forward(pool, now + kept)
            self._recheck_at(None, now + max(kept, _LOOK_AGAIN))
        else:
            self.run(pool)

    def keeps(self, pool: ScheduledPool, connection: PooledConnection) -> bool:
        """Whether *pool* keeps a *connection* that has just come back."""
        now, budget = self._clock.time(), self.budget
        is_over = budget.is_over
        if not (budget.unsatisfied or is_over):
            return True
        if connection.is_kept(now, budget.claims.changes) and not is_over:
            return True
        # The first claim may be out of date, but it only gets weaker with time.
        until = kept_until(pool, connection, budget, now)
        if until <= now:
            self._note(pool, now)
            self._refresh(now, noted=pool)
            until = kept_until(pool, connection, budget, now)
        if until > now:
            # Without a limit in time, it is kept for a reason that may end before a claim changes.
            if until < inf:
                connection.mark_kept(until, budget.claims.changes)
            return True
        if (user := connection.last_user) is not None:
            late = now - connection.opened_at - slice_of(user, self.budget)
            # A small claim does not wait for the end of a slice, and the first slice has no limit.
            if 0 < late < ROUND:
                self.budget.note_overrun(late)
        return False

    def _note(self, pool: ScheduledPool, now: float) -> None:
        """Update what *pool* wants, and whether others may get its connections."""
        budget, own = self.budget, pool.connections
        wanted = shortfall(pool, budget, now)
        if wanted:
            budget.claims.put(claim_of(pool, wanted, budget, now))
        else:
            budget.claims.drop(pool)
        if has_spare(pool, budget):
            budget.spare.bring_forward(pool, spare_at(pool, budget))
        if own.in_use and lends(pool) and (waiter := pool.waiters.next()) is not None:
            # Connections that should have come back by then may not have.
            late_at = waiter.since + max(SOON, budget.connect_seconds) + _TICK
            if late_at > now:
                self._recheck_at(pool, late_at)

    def _refresh(self, now: float, *, noted: ScheduledPool | None) -> None:
        """Bring the first claim, and the first pool to take from, up to date.

        Those of the pool just *noted* already are. Without a free connect slot nobody gets any.
        """
        budget = self.budget
        if budget.connect_slots.free <= 0 and not budget.is_over:
            return
        while (claim := first_claim(budget, now)) is not None and claim.pool is not noted:
            wanted = claim.wanted
            self._note(claim.pool, now)
            if first_claim(budget, now) is claim and claim.wanted == wanted:
                break
        spare = budget.spare
        while (budget.unsatisfied or budget.is_over) and (first := spare.first) is not None:
            donor, at = first
            if not has_spare(donor, budget):
                spare.drop(donor)
            elif (until := spare_at(donor, budget)) > at:
                spare.put(donor, until)
            else:
                break

    # -- later ---------------------------------------------------------------------------------

    def _recheck_at(self, pool: ScheduledPool | None, at: float) -> None:
        """Run again at the monotonic time *at*, for *pool* or only for the budget; inf: never."""
        if at < inf:
            self._rechecks.bring_forward(pool, at)
            if at < self._timer_at:
                self._set_timer()

    def _set_timer(self) -> None:
        if (first := self._rechecks.first) is not None and first[1] < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = first[1]
            delay = max(0.0, self._timer_at - self._clock.time())
            self._timer = self._clock.call_later(delay, self._recheck)

    def _recheck(self) -> None:
        self._timer, self._timer_at, now = None, inf, self._clock.time()
        while (first := self._rechecks.first) is not None and first[1] <= now:
            self._rechecks.drop(first[0])
            self.run(first[0])
        self._set_timer()
