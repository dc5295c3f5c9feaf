"""A simulated server: leases start and end, connections open and close, one budget for all.

A discrete-event model of the real pools: the connection used last is lent first, waiters are
served first come, first served, connections are opened when somebody waits and closed when
unused or too many. When the budget is used up, idle connections of the pool unused for longest
are taken back; when all are busy, the smallest leases ÷ weight is served first. It leaves out
what costs no waiting: closing takes no time, and connections do not age.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush, heapreplace
from itertools import chain

from app.simulator.knee import Knee
from app.simulator.simulated_pool import SimulatedPool, SimulatedPoolConfig
from app.simulator.workload import Request

Event = tuple[float, int, float]
"""When a lease of a pool ends, and how long it was; or a pool, as ~index, gets a connection."""


_END = -1


class SimulatedServer:
    """Pools on one server, advanced tick by tick."""

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
        """Begin at 0 seconds; pools with a min_size open it at once.

        Args:
            pools: of all tenants; a request names one by its place.
            budget: most connections of all pools together.
            rules: how the pools behave.
            connect_seconds: what opening a connection takes.
            max_connecting: how many are opened at a time.
            knee: how leases slow each other down; None for not at all.
        """
        self.now = 0.0
        self._pools = pools
        self._budget = budget
        self._rules = rules
        self._connect_seconds = connect_seconds
        self._knee = knee
        self._used = 0
        self._connecting = 0
        self._unsatisfied: dict[SimulatedPool, None] = {}
        self._events: list[Event] = []
        # When each of the places for opening connections is free again.
        self._connect_slots = [0.0] * max_connecting
        self._indexes = {pool: place for place, pool in enumerate(pools)}
        for pool in pools:
            self._grow(pool, 0.0)

    @property
    def used(self) -> int:
        """Connections open or being opened."""
        return self._used

    def run(self, requests: Iterable[Request], until: float) -> None:
        """Simulate *requests*, in order and none later than *until*."""
        events, pools, knee, unsatisfied = self._events, self._pools, self._knee, self._unsatisfied
        for now, place, hold in chain(requests, ((until, _END, 0.0),)):
            while events and events[0][0] <= now:
                ended = heappop(events)
                pool = pools[ended[1]]
                if (
                    ended[1] < 0
                    or pool.waiting
                    or unsatisfied
                    or pool.established + pool.connecting > pool.max_size
                ):
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
            # As in `_lease`, which is too far away for what happens millions of times.
            pool.idle.pop()
            pool.acquired += 1
            taken = hold
            if knee is not None:
                taken *= knee.stretch(len(events) - self._connecting + 1)
            heappush(events, (now + taken, place, taken))
        self.now = until
        for pool in pools:
            if pool.waiting:
                self._expire_waiters(pool, until)
            pool.accrue(until)

    def resize(self, pool: SimulatedPool, max_size: int) -> None:
        """Change what *pool* may have; surplus connections close when idle."""
        pool.max_size = max_size
        self._close_idle(pool, min(len(pool.idle), max(0, pool.open - max_size)))
        self._grow(pool, self.now)

    def sweep(self) -> None:
        """Close connections idle for the idle timeout, never below min_size."""
        timeout = self._rules.idle_timeout
        for pool in self._pools:
            moment = self.now - timeout
            if pool.idle_seconds is not None:
                moment = self.now - min(timeout, pool.idle_seconds)
            if pool.idle and pool.idle[0] < moment:
                spare = max(0, pool.established - pool.min_size)
                self._close_idle(pool, min(spare, pool.unused_since(moment)))

    def ongoing_hold_seconds(self) -> list[float]:
        """Seconds that the leases in progress of each pool have lasted until now, summed."""
        sums = [0.0] * len(self._pools)
        for ends_at, place, hold in self._events:
            if place >= 0:
                sums[place] += self.now - (ends_at - hold)
        return sums

    def _handle(self, event: Event) -> None:
        now, place, hold = event
        if place < 0:
            self._connected(self._pools[~place], now)
            return
        pool = self._pools[place]
        pool.holds.append(hold)
        self._release(pool, now)

    def _connected(self, pool: SimulatedPool, now: float) -> None:
        pool.connecting -= 1
        self._connecting -= 1
        pool.established += 1
        self._release(pool, now)

    def _release(self, pool: SimulatedPool, now: float) -> None:
        """Close, lease or keep a free connection of *pool*."""
        self._expire_waiters(pool, now)
        if pool.open > pool.max_size or (self._unsatisfied and self._must_yield(pool, now)):
            self._close(pool, now)
        elif pool.waiting:
            since, hold = pool.waiting.popleft()
            pool.waits.append(now - since)
            self._lease(pool, now, hold)
        else:
            pool.idle.append(now)

    def _lease(self, pool: SimulatedPool, now: float, hold: float) -> None:
        pool.acquired += 1
        if self._knee is not None:
            hold *= self._knee.stretch(len(self._events) - self._connecting + 1)
        heappush(self._events, (now + hold, self._indexes[pool], hold))

    def _queue(self, pool: SimulatedPool, now: float, hold: float) -> None:
        self._expire_waiters(pool, now)
        if len(pool.waiting) >= self._rules.max_waiting:
            pool.rejected += 1
            return
        pool.waiting.append((now, hold))
        self._grow(pool, now)

    def _expire_waiters(self, pool: SimulatedPool, now: float) -> None:
        """Drop the waiters that timed out."""
        waiting, timeout = pool.waiting, self._rules.acquire_timeout
        while waiting and waiting[0][0] + timeout <= now:
            waiting.popleft()
            pool.timeouts += 1

    def _grow(self, pool: SimulatedPool, now: float) -> None:
        """Open what *pool* wants, or note that the budget is used up."""
        while pool.shortfall:
            if self._unsatisfied or (self._used >= self._budget and not self._reclaim(now)):
                self._unsatisfied[pool] = None
                return
            self._open(pool, now)

    def _open(self, pool: SimulatedPool, now: float) -> None:
        pool.accrue(now)
        pool.connecting += 1
        pool.connects += 1
        self._used += 1
        self._connecting += 1
        done = max(now, self._connect_slots[0]) + self._connect_seconds
        heapreplace(self._connect_slots, done)
        heappush(self._events, (done, ~self._indexes[pool], 0.0))

    def _close(self, pool: SimulatedPool, now: float) -> None:
        """Close a free connection of *pool*, and offer its place."""
        pool.accrue(now)
        pool.established -= 1
        self._used -= 1
        self._serve_unsatisfied(now)

    def _close_idle(self, pool: SimulatedPool, count: int) -> None:
        """Close the *count* idle connections unused for longest."""
        pool.accrue(self.now)
        del pool.idle[:count]
        pool.established -= count
        self._used -= count
        self._serve_unsatisfied(self.now)

    def _reclaim(self, now: float) -> bool:
        """Close an idle connection of the pool unused for longest; False if there is none."""
        spare = [pool for pool in self._pools if pool.idle and pool.established > pool.min_size]
        if not spare:
            return False
        pool = min(spare, key=lambda pool: pool.idle[-1])
        pool.accrue(now)
        del pool.idle[0]
        pool.established -= 1
        self._used -= 1
        return True

    def _must_yield(self, pool: SimulatedPool, now: float) -> bool:
        """Whether a connection of *pool* should go to a pool that would hold less once served."""
        others = [other for other in self._still_unsatisfied(now) if other is not pool]
        if not others or pool.established <= pool.min_size:
            return False
        # The connection in question counts as leased as long as it is not idle.
        mine = (pool.leased + pool.connecting) / pool.weight
        return not pool.waiting or min(other.next_share for other in others) < mine

    def _still_unsatisfied(self, now: float) -> list[SimulatedPool]:
        """The unsatisfied pools, without those that want nothing any more."""
        for pool in list(self._unsatisfied):
            self._expire_waiters(pool, now)
            if not pool.shortfall:
                del self._unsatisfied[pool]
        return list(self._unsatisfied)

    def _serve_unsatisfied(self, now: float) -> None:
        """Offer what is free, one place at a time, the smallest share first."""
        while self._unsatisfied and self._used < self._budget:
            wanting = self._still_unsatisfied(now)
            if not wanting:
                return
            self._open(min(wanting, key=lambda pool: pool.next_share), now)
