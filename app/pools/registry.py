"""The open pools of one strategy: how many there may be, and which is evicted for another.

Every operation is O(1). Pools in use, and pools with a min_size, are pinned and out of the order of
eviction, so the head of that order is always the next to go. When pinned pools take all slots,
newcomers queue for the next slot that becomes free, first come, first served.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

from app.domain.errors import PoolLimitReached
from app.domain.eviction import EvictionReason
from app.domain.pool import PoolConfig
from app.pools.pool import Pool

Evict = Callable[[Pool, EvictionReason], None]


@dataclass(slots=True, eq=False)
class _Entry:
    """An open pool, how often it was used, when last, and how many reasons keep it open."""

    pool: Pool
    last_access: float
    access_count: int = 1
    pins: int = 0


@dataclass(slots=True, eq=False)
class _Place:
    """One caller in the queue for a slot, and the pool it wants."""

    pool_id: str
    offer: asyncio.Future[None]

    def wake(self) -> bool:
        """Wake the caller; False if it is awake already."""
        if self.offer.done():
            return False
        self.offer.set_result(None)
        return True


class PoolRegistry:
    """Up to *capacity* open pools, by pool id; the least recently used is evicted first."""

    def __init__(self, config: PoolConfig, *, capacity: int, evict: Evict) -> None:
        """Hold up to *capacity* pools; what is put out is handed to *evict*."""
        self.config = config
        self._capacity = capacity
        self._evict = evict
        self._entries: dict[str, _Entry] = {}
        self._evictable: OrderedDict[str, _Entry] = OrderedDict()
        self._queue: deque[_Place] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Pool]:
        """All open pools; iterate over a copy if you evict meanwhile."""
        return (entry.pool for entry in self._entries.values())

    def find(self, pool_id: str) -> Pool | None:
        """The open pool of that id, without counting a use."""
        entry = self._entries.get(pool_id)
        return entry.pool if entry else None

    def use(self, pool_id: str) -> Pool | None:
        """The open pool of that id, counted as a use."""
        entry = self._entries.get(pool_id)
        if entry is None:
            return None
        entry.access_count += 1
        entry.last_access = monotonic()
        if not entry.pins:
            self._evictable.move_to_end(pool_id)
        return entry.pool

    def access_count(self, pool_id: str) -> int:
        """How often the pool was used since it was opened, 0 if it is not open."""
        entry = self._entries.get(pool_id)
        return entry.access_count if entry else 0

    async def wait_for_slot(self, pool_id: str, timeout: float) -> None:
        """Wait up to *timeout* seconds until *pool_id* may be opened, evicting if need be.

        The caller opens it at once, with no await in between, unless it is open by then.

        Raises:
            PoolLimitReached: all pools stayed busy.
        """
        if not self._queue and self._has_slot_for(pool_id):
            return
        place = self._queue_up(pool_id)
        try:
            async with asyncio.timeout(timeout):
                await place.offer
                while not self._has_slot_for(pool_id):
                    # What became quiet is busy again by now: wait on, as the first in the queue.
                    place = self._queue_up(pool_id, first=True)
                    await place.offer
        except TimeoutError as error:
            raise PoolLimitReached(
                f"All {self._capacity} pools of strategy {self.config.strategy} are busy."
            ) from error
        finally:
            if place in self._queue:
                self._queue.remove(place)
            self._offer_slot()

    def add(self, pool: Pool) -> None:
        """Take in a pool for which there is a slot."""
        entry = _Entry(pool, monotonic())
        self._entries[pool.pool_id] = self._evictable[pool.pool_id] = entry
        if pool.size.min_size:
            self.pin(pool)
        for place in self._queue:
            if place.pool_id == pool.pool_id:
                place.wake()

    def remove(self, pool: Pool) -> bool:
        """Take *pool* out, whatever it is doing; False if it is not here any more."""
        if self.find(pool.pool_id) is not pool:
            return False
        self._take_out(self._entries[pool.pool_id])
        self._offer_slot()
        return True

    def pin(self, pool: Pool) -> None:
        """Keep *pool* from being evicted until it is unpinned as often as it was pinned."""
        entry = self._entries.get(pool.pool_id)
        if entry is not None and entry.pool is pool:
            if not entry.pins:
                del self._evictable[pool.pool_id]
            entry.pins += 1

    def unpin(self, pool: Pool) -> None:
        """Undo one pin of *pool*; the last one counts as a use."""
        entry = self._entries.get(pool.pool_id)
        if entry is not None and entry.pool is pool:
            entry.pins -= 1
            if not entry.pins:
                entry.last_access = monotonic()
                self._evictable[pool.pool_id] = entry
        if self._queue:
            self._offer_slot()

    def expired(self) -> list[Pool]:
        """What `evict_expired` would put out now."""
        return [entry.pool for entry in self._evictable.values() if self._is_expired(entry)]

    def evict_expired(self) -> list[Pool]:
        """Put out every pool unused for longer than the idle timeout."""
        evicted = []
        while (entry := self._first()) is not None and self._is_expired(entry):
            evicted.append(entry.pool)
            self._put_out(entry, EvictionReason.IDLE)
        return evicted

    def _has_slot_for(self, pool_id: str) -> bool:
        if len(self._entries) < self._capacity or pool_id in self._entries:
            return True
        entry = self._first()
        if entry is None:
            return False
        self._put_out(entry, EvictionReason.IDLE if self._is_expired(entry) else EvictionReason.LRU)
        return True

    def _first(self) -> _Entry | None:
        """The next to be evicted; an expired one, if any is."""
        return next(iter(self._evictable.values()), None)

    def _is_expired(self, entry: _Entry) -> bool:
        return monotonic() - entry.last_access > self.config.idle_timeout

    def _put_out(self, entry: _Entry, reason: EvictionReason) -> None:
        self._take_out(entry)
        self._evict(entry.pool, reason)

    def _take_out(self, entry: _Entry) -> None:
        del self._entries[entry.pool.pool_id]
        self._evictable.pop(entry.pool.pool_id, None)

    def _queue_up(self, pool_id: str, *, first: bool = False) -> _Place:
        place = _Place(pool_id, asyncio.get_running_loop().create_future())
        (self._queue.appendleft if first else self._queue.append)(place)
        return place

    def _offer_slot(self) -> None:
        """Wake the first who waits: a pool may have become evictable."""
        while self._queue:
            if self._queue.popleft().wake():
                return
