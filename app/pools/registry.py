"""The registry of one strategy's open pools: how many may be open, and which one is evicted next.

Every operation is O(1). Pools in use, and pools with a min_size, are pinned and out of the order of
eviction, so the head of that order is always the next to go. When pinned pools take all slots,
newcomers queue for the next slot that becomes free, first come, first served.

A pool that always has callers would keep its slot for ever. So while callers wait for a slot, the
pool that has had its slot longest, and at least for a turn, yields: its new callers queue for a
slot too, and once its present leases have ended, its slot is free. No lease is cut. If the leases
take longer than a turn, its callers are served again, and the next pool yields.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from time import monotonic

from app.domain.errors import PoolLimitReached
from app.domain.eviction import EvictionReason
from app.domain.pool import PoolConfig
from app.domain.wait import Use, in_seconds
from app.pools.borrower import Borrower
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

Evict = Callable[[Pool, EvictionReason], None]

# In seconds: many times the cost of opening a pool, and a part of the callers' patience.
_TURN = 1.0


@dataclass(slots=True, eq=False)
class _Entry:
    """An open pool: its number of uses, its last use, and the number of its pins.

    Its turn began when it was opened, or when it last yielded.
    """

    pool: Pool
    last_access: float
    turn_began: float
    access_count: int = 1
    pins: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class SlotWaiter:
    """One caller in the queue for a slot.

    Attributes:
        tenant_state: the tenant whose pool shall be opened.
        since: when it began to wait, in monotonic seconds.
        borrower: who waits; None if nobody will borrow a connection.
        offer: done once the caller was woken.
    """

    tenant_state: TenantState
    since: float
    borrower: Borrower | None
    offer: asyncio.Future[None]

    @property
    def asked_at(self) -> float:
        """When the caller asked for a lease, in monotonic seconds."""
        return self.borrower.asked_at if self.borrower else self.since

    def wake(self) -> bool:
        """Wake the caller; False if it was already woken."""
        if self.offer.done():
            return False
        self.offer.set_result(None)
        return True


class PoolRegistry:
    """Up to *capacity* open pools, by pool id; the least recently used is evicted first."""

    def __init__(self, config: PoolConfig, *, capacity: int, evict: Evict) -> None:
        """Hold up to *capacity* pools; evicted pools are handed to *evict*."""
        self.config = config
        self._capacity = capacity
        self._evict = evict
        # In the order in which their turns began.
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._evictable: OrderedDict[str, _Entry] = OrderedDict()
        self._queue: OrderedDict[SlotWaiter, None] = OrderedDict()
        # The same by pool, in the order in which they came; and those that were just woken.
        self._waiting: defaultdict[str, dict[SlotWaiter, None]] = defaultdict(dict)
        self._yielding: _Entry | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def slots(self) -> Use:
        """Number of open pools, and the limit."""
        return Use(len(self), self._capacity)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Pool]:
        """All open pools; iterate over a copy if you evict during the iteration."""
        return (entry.pool for entry in self._entries.values())

    def find(self, pool_id: str) -> Pool | None:
        """The open pool of that id; this does not count as a use."""
        entry = self._entries.get(pool_id)
        return entry.pool if entry else None

    def use(self, pool_id: str) -> Pool | None:
        """The open pool of that id, counted as a use; None if it yields its slot."""
        entry = self._entries.get(pool_id)
        if entry is None or (entry is self._yielding and self._queue):
            return None
        entry.access_count += 1
        entry.last_access = monotonic()
        if not entry.pins:
            self._evictable.move_to_end(pool_id)
        return entry.pool

    def access_count(self, pool_id: str) -> int:
        """Number of uses of the pool since it was opened; 0 if it is not open."""
        entry = self._entries.get(pool_id)
        return entry.access_count if entry else 0

    def waiting(self, pool_id: str) -> Collection[SlotWaiter]:
        """The callers that wait for a slot for this pool, in the order in which they came."""
        return self._waiting.get(pool_id, {}).keys()

    @property
    def awaited(self) -> Collection[str]:
        """The ids of the pools for which a caller waits for a slot."""
        return self._waiting.keys()

    async def wait_for_slot(
        self, tenant_state: TenantState, timeout: float, borrower: Borrower | None = None
    ) -> float:
        """Wait up to *timeout* seconds until the tenant's pool may be opened; may evict another.

        The caller must open it at once, with no await in between, unless it is open by then.
        Returns the seconds of waiting, 0 for none. A wait that ends without a slot is counted here.

        Raises:
            PoolLimitReached: all pools stayed busy.
        """
        pool_id = tenant_state.tenant.spec.pool_id
        if not self._queue and self._has_slot_for(pool_id):
            return 0.0
        waiter = self._queue_up(tenant_state, borrower)
        if self._timer is None:
            self._take_turns()
        try:
            async with asyncio.timeout(timeout):
                await waiter.offer
                while not self._has_slot_for(pool_id):
                    # The evictable pool is busy again by now: wait on, as the first in the queue.
                    waiter.offer = asyncio.get_running_loop().create_future()
                    self._queue[waiter] = None
                    self._queue.move_to_end(waiter, last=False)
                    await waiter.offer
        except TimeoutError as error:
            tenant_state.recorder.record_timeout()
            self._gave_up(waiter)
            raise self._limit_reached(waiter) from error
        except asyncio.CancelledError:
            self._gave_up(waiter)
            raise
        finally:
            self._queue.pop(waiter, None)
            same = self._waiting[pool_id]
            del same[waiter]
            if not same:
                del self._waiting[pool_id]
            self._offer_slot()
        return monotonic() - waiter.since

    def add(self, pool: Pool) -> None:
        """Add a pool for which there is a slot."""
        entry = _Entry(pool, monotonic(), monotonic())
        self._entries[pool.pool_id] = self._evictable[pool.pool_id] = entry
        if pool.size.min_size:
            self.pin(pool)
        self._let_in(pool)

    def remove(self, pool: Pool) -> bool:
        """Remove *pool*, whatever it is doing; False if it is no longer here."""
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
        """Undo one pin of *pool*; the last unpin counts as a use."""
        entry = self._entries.get(pool.pool_id)
        if entry is not None and entry.pool is pool:
            entry.pins -= 1
            if not entry.pins:
                entry.last_access = monotonic()
                self._evictable[pool.pool_id] = entry
        if self._queue:
            self._offer_slot()

    def expired(self) -> list[Pool]:
        """The pools that `evict_expired` would evict now."""
        return [entry.pool for entry in self._evictable.values() if self._is_expired(entry)]

    def evict_expired(self) -> Iterator[Pool]:
        """Evict every pool unused for longer than the idle timeout, one a step."""
        while (entry := self._first()) is not None and self._is_expired(entry):
            self._put_out(entry, EvictionReason.IDLE)
            yield entry.pool

    def _has_slot_for(self, pool_id: str) -> bool:
        if len(self._entries) < self._capacity or pool_id in self._entries:
            return True
        entry = self._first()
        if entry is None:
            return False
        self._put_out(entry, EvictionReason.IDLE if self._is_expired(entry) else EvictionReason.LRU)
        return True

    def _first(self) -> _Entry | None:
        """The next pool to evict; an expired one, if there is one."""
        return next(iter(self._evictable.values()), None)

    def _is_expired(self, entry: _Entry) -> bool:
        return monotonic() - entry.last_access > self.config.idle_timeout

    def _put_out(self, entry: _Entry, reason: EvictionReason) -> None:
        self._take_out(entry)
        self._evict(entry.pool, reason)

    def _take_out(self, entry: _Entry) -> None:
        del self._entries[entry.pool.pool_id]
        self._evictable.pop(entry.pool.pool_id, None)
        if entry is self._yielding:
            self._yielding = None
            self._take_turns()

    def _queue_up(self, tenant_state: TenantState, borrower: Borrower | None) -> SlotWaiter:
        waiter = SlotWaiter(
            tenant_state=tenant_state,
            since=monotonic(),
            borrower=borrower,
            offer=asyncio.get_running_loop().create_future(),
        )
        self._queue[waiter] = self._waiting[tenant_state.tenant.spec.pool_id][waiter] = None
        return waiter

    def _limit_reached(self, waiter: SlotWaiter) -> PoolLimitReached:
        config, waited = self.config, monotonic() - waiter.asked_at
        return PoolLimitReached(
            f"All {self._capacity} pools of strategy {config.strategy} are busy, for "
            f"{in_seconds(waited)} now. {config.max_pools_setting} limits them."
        )

    def _gave_up(self, waiter: SlotWaiter) -> None:
        now, recorder = monotonic(), waiter.tenant_state.recorder
        waited = now - waiter.since
        recorder.record_abandoned(waited, now)
        recorder.record_slot_wait(waited)

    def _let_in(self, pool: Pool) -> None:
        """Wake the callers that wait for *pool*, which is open."""
        for waiter in self.waiting(pool.pool_id):
            waiter.wake()

    def _take_turns(self) -> None:
        """While callers wait for a slot, make the pool yield whose turn is over; see the module."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, yielding = monotonic(), self._yielding
        if yielding is not None and (not self._queue or now >= yielding.turn_began + _TURN):
            self._yielding = None
            self._let_in(yielding.pool)
        if not self._queue:
            return
        entries = (each for each in self._entries.values() if not each.pool.size.min_size)
        due = now + _TURN
        if self._yielding is None and (entry := next(entries, None)) is not None:
            if now >= entry.turn_began + _TURN:
                self._yielding = entry
                entry.turn_began = now
                self._entries.move_to_end(entry.pool.pool_id)
            due = entry.turn_began + _TURN
        self._timer = asyncio.get_running_loop().call_later(due - now, self._take_turns)

    def _offer_slot(self) -> None:
        """Wake the first waiter, because a pool may have become evictable."""
        while self._queue:
            waiter, _ = self._queue.popitem(last=False)
            if waiter.wake():
                return
