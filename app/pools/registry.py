"""How many pools of one strategy may be open, and which goes when another needs its place.

Busy pools are pinned, out of the order of eviction; so are pools with a min_size. When all
places are taken by such pools, newcomers queue for the next place that becomes free, first
come, first served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.domain.errors import PoolLimitReached
from app.domain.pool import PoolConfig
from app.pools.eviction import EvictionReason
from app.pools.lru import TenantLruCache
from app.pools.pool import Pool

Evict = Callable[[Pool, EvictionReason], None]


@dataclass(slots=True, eq=False)
class _Place:
    """One caller in the queue, and the pool it wants."""

    pool_id: str
    offer: asyncio.Future[None]

    def tell(self) -> bool:
        """Wake the caller; False if it is awake already."""
        if self.offer.done():
            return False
        self.offer.set_result(None)
        return True


class PoolRegistry:
    """The open pools of one strategy, by pool id."""

    def __init__(self, config: PoolConfig, *, capacity: int, evict: Evict) -> None:
        """Hold up to *capacity* pools; what is put out is handed to *evict*."""
        self.config = config
        self._cache: TenantLruCache[str, Pool] = TenantLruCache(capacity, config.idle_timeout)
        self._evict = evict
        self._queue: deque[_Place] = deque()

    def __len__(self) -> int:
        """How many pools are open."""
        return len(self._cache)

    def __iter__(self) -> Iterator[Pool]:
        """All open pools."""
        return iter(self._cache)

    def find(self, pool_id: str) -> Pool | None:
        """The open pool of that id; does not count as a use."""
        return self._cache.peek(pool_id)

    def access_count(self, pool_id: str) -> int:
        """How often the pool was used since it was opened."""
        return self._cache.access_count(pool_id)

    def use(self, pool_id: str) -> Pool | None:
        """The open pool of that id, counted as a use."""
        return self._cache.get(pool_id)

    async def wait_for_slot(self, pool_id: str, timeout: float) -> None:
        """Wait up to *timeout* seconds until *pool_id* may be opened, evicting if need be.

        The caller opens it at once, with no await in between, unless it is open by then.

        Raises:
            PoolLimitReached: all pools stayed busy.
        """
        if not self._queue and self._make_room_for(pool_id):
            return
        place = self._queue_up(pool_id)
        try:
            async with asyncio.timeout(timeout):
                await place.offer
                while not self._make_room_for(pool_id):
                    # What became quiet is busy again by now: wait on, as the first in the queue.
                    place = self._queue_up(pool_id, first=True)
                    await place.offer
        except TimeoutError as error:
            raise PoolLimitReached(
                f"All {self._cache.max_size} pools of strategy {self.config.strategy} are busy."
            ) from error
        finally:
            if place in self._queue:
                self._queue.remove(place)
            self._offer()

    def put(self, pool: Pool) -> None:
        """Take in a pool for which there is room."""
        pool.entry = self._cache.insert(pool.pool_id, pool)
        if pool.size.min_size:
            pool.entry.pin()
        for place in self._queue:
            if place.pool_id == pool.pool_id:
                place.tell()

    def take_out(self, pool: Pool) -> bool:
        """Take *pool* out, whatever it is doing; False if somebody did before."""
        if self._cache.peek(pool.pool_id) is not pool:
            return False
        self._cache.remove(pool.pool_id)
        self._offer()
        return True

    def keep(self, pool: Pool, *, kept: bool) -> None:
        """Exempt *pool* from eviction, or no longer, when its min_size changes from or to 0."""
        if kept:
            self.pin(pool)
        else:
            self.unpin(pool)

    def pin(self, pool: Pool) -> None:
        """*pool* is in use: it cannot be evicted."""
        if pool.entry is not None:
            pool.entry.pin()

    def unpin(self, pool: Pool) -> None:
        """*pool* is not in use any more."""
        if pool.entry is not None:
            pool.entry.unpin()
        if self._queue:
            self._offer()

    def expired(self) -> list[Pool]:
        """What `evict_expired` would put out now."""
        return self._cache.expired()

    def evict_expired(self) -> list[Pool]:
        """Put out every pool unused for longer than the idle timeout."""
        expired = self._cache.evict_expired()
        for pool in expired:
            self._evict(pool, EvictionReason.IDLE)
        return expired

    def _make_room_for(self, pool_id: str) -> bool:
        if not self._cache.is_full or pool_id in self._cache:
            return True
        victim = self._cache.evict_one()
        if victim is None:
            return False
        pool, expired = victim
        self._evict(pool, EvictionReason.IDLE if expired else EvictionReason.LRU)
        return True

    def _queue_up(self, pool_id: str, *, first: bool = False) -> _Place:
        place = _Place(pool_id, asyncio.get_running_loop().create_future())
        (self._queue.appendleft if first else self._queue.append)(place)
        return place

    def _offer(self) -> None:
        """Tell the first who waits that a pool may have become evictable."""
        while self._queue:
            if self._queue.popleft().tell():
                return
