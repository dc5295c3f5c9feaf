"""A simulated server: leases start and end, connections open and close, one budget for all.

A discrete-event model of the real pools. The most recently used connection is lent first; waiters
are served first come, first served; connections are opened when somebody waits, and closed when
unused or too many. No connection is opened for a waiter that a running lease will serve earlier (by
the pools' own function). When the budget is used up, pools take turns by time, with the rules of
the real policy (`sharing`). A login takes processor time: it slows down other logins and, if the
server has a knee, the leases. The model has no maximum lifetime of connections.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import chain
from math import inf

from app.domain.connection_openings import SOON, openings_wanted
from app.domain.time_sharing import most_moves
from app.simulator import sharing
from app.simulator.knee import Knee
from app.simulator.simulated_pool import SimulatedPool, SimulatedPoolConfig
from app.simulator.workload import Request

Event = tuple[float, int, float]
"""When a lease of a pool ends, and its length; or a pool, as ~index, gets a connection."""

_END = -1
# A login's processor time, its largest part of the login's time, and the processors that it shares
# with others.
_LOGIN_CPU_SECONDS = 0.01
_PROCESSORS = 2
# The time of closing a connection, relative to opening one.
_CLOSING = 0.3


class SimulatedServer:
    """Pools on one server, advanced tick by tick.

    Attributes:
        used: connections open or being opened.
    """

    def __init__(
        self,
        pools: Sequence[SimulatedPool],
        *,
        budget: int,
        rules: SimulatedPoolConfig,
        connect_seconds: float,
        max_connecting: int,
        knee: Knee | None,
    ) -> None:
        """Start at 0 seconds; pools open their min_size at once.

        Args:
            pools: the pools of all tenants; a request names one by its index.
            budget: most connections of all pools together.
            rules: the configuration of the pools.
            connect_seconds: the time to open a connection while no other is being opened.
            max_connecting: how many are opened at a time.
            knee: how leases slow each other down; None for not at all.
        """
        self.now = 0.0
        self._pools = pools
        self._budget = budget
        self._rules = rules
        self._connect_seconds = connect_seconds
        self._max_connecting = max_connecting
        self._knee = knee
        self.used = 0
        self._connecting = 0
        # Pools with waiters or too few connections, and whether one of them could not get all that
        # it wants.
        self._wanting: dict[SimulatedPool, None] = {pool: None for pool in pools if pool.min_size}
        self._is_short = False
        self._events: list[Event] = []
        # When to run again although nothing happens: the code for that event, and the next time.
        self._recheck, self._recheck_at = len(pools), inf
        self._indexes = {pool: place for place, pool in enumerate(pools)}
        self._dispatch(0.0)

    def run(self, requests: Iterable[Request], until: float) -> None:
        """Simulate *requests*, in order and none later than *until*."""
        events, pools, knee, recheck = self._events, self._pools, self._knee, self._recheck
        for now, place, hold in chain(requests, ((until, _END, 0.0),)):
            while events and events[0][0] <= now:
                ended = heappop(events)
                if ended[1] < 0 or ended[1] == recheck or self._is_short:
                    self._handle(ended)
                    continue
                pool = pools[ended[1]]
                if pool.waiting or pool.established + pool.connecting > pool.max_size:
                    self._handle(ended)
                else:
                    pool.holds.append(ended[2])
                    pool.idle.append(ended[0])
            if place == _END:
                break
            pool = pools[place]
            if not pool.idle:
                self._queue(pool, now, hold)
                continue
            # The same as in `_lease`; a call would be too slow for something that happens millions
            # of times.
            pool.idle.pop()
            pool.idle_found_at = now
            pool.acquired += 1
            taken = hold
            if knee is not None:
                taken *= knee.stretch(len(events) + 1)
            heappush(events, (now + taken, place, taken))
        self.now = until
        for pool in pools:
            if pool.waiting:
                self._expire_waiters(pool, until)
            pool.note(until)
            pool.accrue(until)

    def resize(self, pool: SimulatedPool, max_size: int) -> None:
        """Change *pool*'s max_size; surplus connections close when idle."""
        pool.max_size = max_size
        self._close_idle(pool, min(len(pool.idle), max(0, pool.open - max_size)), self.now)
        self._dispatch(self.now)

    def sweep(self) -> None:
        """Close connections idle for the idle timeout, and surplus ones; never below min_size.

        Surplus connections are idle ones beyond the advised warm size that have reached the advised
        age.
        """
        timeout = self._rules.idle_timeout
        for pool in self._pools:
            if pool.idle and pool.idle[0] < self.now - timeout:
                spare = max(0, pool.established - pool.min_size)
                unused = bisect_left(pool.idle, self.now - timeout)
                self._close_idle(pool, min(spare, unused), self.now)
            if pool.idle_seconds is not None and pool.idle_seconds < timeout:
                keep = max(pool.min_size, pool.warm_size)
                old = bisect_right(pool.opened, self.now - pool.idle_seconds)
                spare = min(len(pool.idle), pool.established - keep, old)
                self._close_idle(pool, max(0, spare), self.now)
        self._dispatch(self.now)

    def ongoing_hold_seconds(self) -> list[float]:
        """For each pool, the sum of the present durations of its running leases, in seconds."""
        sums = [0.0] * len(self._pools)
        for ends_at, place, hold in self._events:
            if 0 <= place < self._recheck:
                sums[place] += self.now - (ends_at - hold)
        return sums

    def shortfall(self, pool: SimulatedPool, now: float) -> int:
        """How many connections *pool* would open if the budget had them."""
        wanted = pool.min_size - pool.open
        if pool.waiting:
            pool.note(now)
            for_waiters = openings_wanted(
                len(pool.waiting),
                pool.connecting,
                pool.leased,
                hold=pool.hold,
                connect=self._connect_seconds,
                longest_wait=now - pool.waiting[0][0],
                busy_for=now - pool.idle_found_at,
            )
            wanted = max(wanted, for_waiters)
        return max(0, min(wanted, pool.max_size - pool.open))

    def _handle(self, event: Event) -> None:
        now, place, hold = event
        if place == self._recheck:
            self._recheck_at = inf
            self._dispatch(now)
        elif place < 0:
            pool = self._pools[~place]
            pool.connecting -= 1
            self._connecting -= 1
            pool.established += 1
            pool.opened.append(now)
            self._free(pool, now)
        else:
            pool = self._pools[place]
            pool.holds.append(hold)
            if self._is_short:
                self._expire_waiters(pool, now)
                if not self._keeps(pool, now):
                    self._close(pool, now)
                    return
            self._free(pool, now)

    def _free(self, pool: SimulatedPool, now: float) -> None:
        """Close, lease or keep a free connection of *pool*."""
        self._expire_waiters(pool, now)
        if pool.open > pool.max_size:
            self._close(pool, now)
            return
        if pool.waiting:
            since, hold = pool.waiting.popleft()
            pool.waits.append(now - since)
            self._lease(pool, now, hold)
        else:
            pool.idle.append(now)
        if self._wanting:
            self._dispatch(now)

    def _lease(self, pool: SimulatedPool, now: float, hold: float) -> None:
        pool.acquired += 1
        if self._knee is not None:
            hold *= self._knee.stretch(len(self._events) + 1)
        heappush(self._events, (now + hold, self._indexes[pool], hold))

    def _queue(self, pool: SimulatedPool, now: float, hold: float) -> None:
        self._expire_waiters(pool, now)
        if len(pool.waiting) >= self._rules.max_waiting:
            pool.rejected += 1
            return
        pool.waiting.append((now, hold))
        self._wanting[pool] = None
        self._dispatch(now)

    def _expire_waiters(self, pool: SimulatedPool, now: float) -> None:
        """Drop the waiters that timed out."""
        waiting, timeout = pool.waiting, self._rules.acquire_timeout
        while waiting and waiting[0][0] + timeout <= now:
            waiting.popleft()
            pool.timeouts += 1

    def _dispatch(self, now: float) -> None:
        """Open wanted connections while there are a place and a connect slot; note what is missing.

        The pool with the least use comes first. If the budget is used up, an idle connection that
        is not kept for its own tenant is closed.
        """
        self._is_short = False
        while self._wanting and self._connecting < self._max_connecting:
            claim = self._first_claim(now)
            if claim is None:
                return
            if self.used >= self._budget and not self._take_idle(claim, now):
                self._is_short = True
                return
            self._open(claim, now, is_move=self.used + 1 >= self._budget)
        self._is_short = bool(self._wanting)

    def _first_claim(self, now: float, but: SimulatedPool | None = None) -> SimulatedPool | None:
        """The pool that may open a connection next; None if none wants one at this time."""
        first, least, overdue_at = None, (inf, inf), inf
        for pool in list(self._wanting):
            self._expire_waiters(pool, now)
            if not pool.waiting and pool.open >= pool.min_size:
                del self._wanting[pool]
            elif pool is not but and self.shortfall(pool, now):
                place = sharing.order(pool, now)
                if first is None or place < least:
                    first, least = pool, place
            elif pool.waiting and pool.open < pool.max_size and not pool.connecting:
                overdue_at = min(overdue_at, pool.waiting[0][0] + max(SOON, self._connect_seconds))
        if overdue_at > now:
            self._look_again(overdue_at)
        return first

    def _look_again(self, at: float) -> None:
        if at < self._recheck_at:
            self._recheck_at = at
            heappush(self._events, (at, self._recheck, 0.0))

    def _open(self, pool: SimulatedPool, now: float, *, is_move: bool) -> None:
        pool.accrue(now)
        pool.connecting += 1
        pool.connects += 1
        self.used += 1
        self._connecting += 1
        cpu = min(self._connect_seconds, _LOGIN_CPU_SECONDS)
        cpu_waits = cpu * max(0.0, self._connecting / _PROCESSORS - 1)
        took = self._connect_seconds + cpu_waits + cpu * _CLOSING * is_move
        heappush(self._events, (now + took, ~self._indexes[pool], 0.0))

    def _close(self, pool: SimulatedPool, now: float) -> None:
        """Close a free connection of *pool*, and offer its place in the budget."""
        pool.accrue(now)
        pool.opened.popleft()
        pool.established -= 1
        self.used -= 1
        self._dispatch(now)

    def _close_idle(self, pool: SimulatedPool, count: int, now: float) -> None:
        """Close the *count* idle connections unused for longest."""
        pool.accrue(now)
        del pool.idle[:count]
        for _ in range(count):
            pool.opened.popleft()
        pool.established -= count
        self.used -= count

    @property
    def _move_seconds(self) -> float:
        cpu = min(self._connect_seconds, _LOGIN_CPU_SECONDS)
        return self._connect_seconds + _CLOSING * cpu

    def _take_idle(self, claim: SimulatedPool, now: float) -> bool:
        """Close an idle connection that is kept for nobody; return False if there is none yet."""
        earliest, donor = inf, None
        for pool in self._pools:
            if pool.idle and pool is not claim and pool.established > pool.min_size:
                until = pool.idle[0] + sharing.kept_seconds(pool, self._move_seconds)
                if until < earliest:
                    earliest, donor = until, pool
        if donor is None:
            return False
        if earliest > now:
            self._look_again(earliest)
            return False
        self._close_idle(donor, 1, now)
        return True

    def _keeps(self, pool: SimulatedPool, now: float) -> bool:
        """Whether *pool* keeps a connection that has just come back, while others want one."""
        if not pool.waiting or pool.established <= pool.min_size:
            # A connection that nobody waits for becomes idle: `_take_idle` decides.
            return True
        if self._connecting >= min(self._max_connecting, most_moves(self._budget)):
            return True
        if self.used < self._budget:
            return True
        claim = self._first_claim(now, but=pool)
        if claim is None:
            return True
        weight = sum([other.weight for other in self._pools if other.leased or other.waiting])
        return sharing.keeps(
            pool,
            claim,
            now,
            fair_share=self._budget / weight,
            move_seconds=self._move_seconds,
            acquire_timeout=self._rules.acquire_timeout,
        )
