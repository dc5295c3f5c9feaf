"""A simulated server: leases begin and end, connections open and close, one budget for all.

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


_NOBODY = -1


class SimulatedServer:
    """Pools on one server, moved on from tick to tick."""

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
            knee: how leases take longer together; None for not at all.
        """
        self.now = 0.0
        self._pools = pools
        self._budget = budget
        self._rules = rules
        self._connect_seconds = connect_seconds
        self._knee = knee
        self._used = 0
        self._connecting = 0
        self._starving: dict[SimulatedPool, None] = {}
        self._events: list[Event] = []
        # When each of the places for opening connections is free again.
        self._gate = [0.0] * max_connecting
        self._places = {pool: place for place, pool in enumerate(pools)}
        for pool in pools:
            self._grow(pool, 0.0)

    @property
    def used(self) -> int:
        """Connections open or being opened."""
        return self._used

    def run(self, requests: Iterable[Request], until: float) -> None:
        """Live through *requests*, in order and none later than *until*."""
        events, pools, knee, starving = self._events, self._pools, self._knee, self._starving
        for now, place, hold in chain(requests, ((until, _NOBODY, 0.0),)):
            while events and events[0][0] <= now:
                ended = heappop(events)
                pool = pools[ended[1]]
                if (
                    ended[1] < 0
                    or pool.waiting
                    or starving
                    or pool.live + pool.connecting > pool.max_size
                ):
                    self._happen(ended)
                else:
                    pool.holds.append(ended[2])
                    pool.idle.append(ended[0])
            if place == _NOBODY:
                break
            pool = pools[place]
            if not pool.idle:
                self._queue(pool, now, hold)
                continue
            # As in `_lend`, which is too far away for what happens millions of times.
            pool.idle.pop()
            pool.acquired += 1
            taken = hold
            if knee is not None:
                taken *= knee.stretch(len(events) - self._connecting + 1)
            heappush(events, (now + taken, place, taken))
        self.now = until
        for pool in pools:
            if pool.waiting:
                self._purge(pool, until)
            pool.touch(until)

    def resize(self, pool: SimulatedPool, max_size: int) -> None:
        """Change what *pool* may have; surplus connections close when nobody uses them."""
        pool.max_size = max_size
        self._close_idle(pool, min(len(pool.idle), max(0, pool.open - max_size)))
        self._grow(pool, self.now)

    def sweep(self) -> None:
        """Close what nobody has used for the idle timeout, never below min_size."""
        timeout = self._rules.idle_timeout
        for pool in self._pools:
            moment = self.now - timeout
            if pool.idle_seconds is not None:
                moment = self.now - min(timeout, pool.idle_seconds)
            if pool.idle and pool.idle[0] < moment:
                spare = max(0, pool.live - pool.min_size)
                self._close_idle(pool, min(spare, pool.unused_since(moment)))

    def held_so_far(self) -> list[float]:
        """Seconds that the leases in progress of each pool have lasted until now, summed."""
        sums = [0.0] * len(self._pools)
        for ends_at, place, hold in self._events:
            if place >= 0:
                sums[place] += self.now - (ends_at - hold)
        return sums

    def _happen(self, event: Event) -> None:
        now, place, hold = event
        if place < 0:
            self._connected(self._pools[~place], now)
            return
        pool = self._pools[place]
        pool.holds.append(hold)
        self._pass_on(pool, now)

    def _connected(self, pool: SimulatedPool, now: float) -> None:
        pool.connecting -= 1
        self._connecting -= 1
        pool.live += 1
        self._pass_on(pool, now)

    def _pass_on(self, pool: SimulatedPool, now: float) -> None:
        """Decide about a connection of *pool* that nobody holds: close, lend or keep it."""
        self._purge(pool, now)
        if pool.open > pool.max_size or (self._starving and self._must_yield(pool, now)):
            self._close(pool, now)
        elif pool.waiting:
            since, hold = pool.waiting.popleft()
            pool.waits.append(now - since)
            self._lend(pool, now, hold)
        else:
            pool.idle.append(now)

    def _lend(self, pool: SimulatedPool, now: float, hold: float) -> None:
        pool.acquired += 1
        if self._knee is not None:
            hold *= self._knee.stretch(len(self._events) - self._connecting + 1)
        heappush(self._events, (now + hold, self._places[pool], hold))

    def _queue(self, pool: SimulatedPool, now: float, hold: float) -> None:
        self._purge(pool, now)
        if len(pool.waiting) >= self._rules.max_waiting:
            pool.rejected += 1
            return
        pool.waiting.append((now, hold))
        self._grow(pool, now)

    def _purge(self, pool: SimulatedPool, now: float) -> None:
        """Let those go who have waited too long."""
        waiting, timeout = pool.waiting, self._rules.acquire_timeout
        while waiting and waiting[0][0] + timeout <= now:
            waiting.popleft()
            pool.timeouts += 1

    def _grow(self, pool: SimulatedPool, now: float) -> None:
        """Open what *pool* wants, or remember that it could not be had."""
        while pool.unserved:
            if self._starving or (self._used >= self._budget and not self._reclaim(now)):
                self._starving[pool] = None
                return
            self._open(pool, now)

    def _open(self, pool: SimulatedPool, now: float) -> None:
        pool.touch(now)
        pool.connecting += 1
        pool.connects += 1
        self._used += 1
        self._connecting += 1
        done = max(now, self._gate[0]) + self._connect_seconds
        heapreplace(self._gate, done)
        heappush(self._events, (done, ~self._places[pool], 0.0))

    def _close(self, pool: SimulatedPool, now: float) -> None:
        """Close a connection of *pool* that is in nobody's hands, and offer its place."""
        pool.touch(now)
        pool.live -= 1
        self._used -= 1
        self._serve_starving(now)

    def _close_idle(self, pool: SimulatedPool, count: int) -> None:
        """Close the *count* idle connections unused for longest."""
        pool.touch(self.now)
        del pool.idle[:count]
        pool.live -= count
        self._used -= count
        self._serve_starving(self.now)

    def _reclaim(self, now: float) -> bool:
        """Close an idle connection of the pool unused for longest; False if there is none."""
        spare = [pool for pool in self._pools if pool.idle and pool.live > pool.min_size]
        if not spare:
            return False
        pool = min(spare, key=lambda pool: pool.idle[-1])
        pool.touch(now)
        del pool.idle[0]
        pool.live -= 1
        self._used -= 1
        return True

    def _must_yield(self, pool: SimulatedPool, now: float) -> bool:
        """Whether a connection of *pool* should go to a pool that would hold less once served."""
        others = [other for other in self._wanting(now) if other is not pool]
        if not others or pool.live <= pool.min_size:
            return False
        # The connection in question counts as leased as long as it is not idle.
        mine = (pool.leased + pool.connecting) / pool.weight
        return not pool.waiting or min(other.next_share for other in others) < mine

    def _wanting(self, now: float) -> list[SimulatedPool]:
        """The starving pools; who wants nothing any more is dropped."""
        for pool in list(self._starving):
            self._purge(pool, now)
            if not pool.unserved:
                del self._starving[pool]
        return list(self._starving)

    def _serve_starving(self, now: float) -> None:
        """Offer what is free, one place at a time, the smallest share first."""
        while self._starving and self._used < self._budget:
            wanting = self._wanting(now)
            if not wanting:
                return
            self._open(min(wanting, key=lambda pool: pool.next_share), now)
