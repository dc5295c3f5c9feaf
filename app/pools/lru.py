"""A cache with a capacity that forgets what was not used for longest.

Every operation is O(1): entries in use are pinned and out of the order, so the head of the
order is always the next to go. It closes nothing: whoever evicts gets the value back.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Entry(Generic[K, V]):
    """One value and its place in the order; whoever pins it often need not look it up.

    An entry that was taken out keeps a pin for ever, so that nothing puts it back.
    """

    __slots__ = ("_clock", "_unpinned", "access_count", "key", "last_access", "pins", "value")

    def __init__(
        self,
        key: K,
        value: V,
        unpinned: OrderedDict[K, Entry[K, V]],
        clock: Callable[[], float],
    ) -> None:
        """Put *value* last into the order of what is *unpinned*."""
        self.key = key
        self.value = value
        self.access_count = 1
        self.pins = 0
        self.last_access = clock()
        self._clock = clock
        self._unpinned = unpinned
        unpinned[key] = self

    def pin(self) -> None:
        """Keep it from being evicted until it is unpinned as often as it was pinned."""
        if not self.pins:
            del self._unpinned[self.key]
        self.pins += 1

    def unpin(self) -> None:
        """Undo one pin; the last one counts as a use."""
        self.pins -= 1
        if not self.pins:
            self.last_access = self._clock()
            self._unpinned[self.key] = self

    def use(self) -> None:
        """Count a use."""
        self.access_count += 1
        self.last_access = self._clock()
        if not self.pins:
            self._unpinned.move_to_end(self.key)


class TenantLruCache(Generic[K, V]):
    """Up to *max_size* entries, the least recently used going first."""

    def __init__(
        self, max_size: int, idle_timeout: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Hold *max_size* entries; one not used for over *idle_timeout* seconds is expired."""
        self.max_size = max_size
        self.idle_timeout = idle_timeout
        self._clock = clock
        self._entries: dict[K, Entry[K, V]] = {}
        self._unpinned: OrderedDict[K, Entry[K, V]] = OrderedDict()

    def __len__(self) -> int:
        """How many entries there are, pinned ones included."""
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        """Whether *key* is here; does not count as a use."""
        return key in self._entries

    def __iter__(self) -> Iterator[V]:
        """All values, in no particular order; iterate over a copy if you evict meanwhile."""
        return (entry.value for entry in self._entries.values())

    @property
    def is_full(self) -> bool:
        """Whether an insert would have to evict."""
        return len(self._entries) >= self.max_size

    def get(self, key: K) -> V | None:
        """The value, counted as a use, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.use()
        return entry.value

    def peek(self, key: K) -> V | None:
        """The value without counting a use, or None."""
        entry = self._entries.get(key)
        return entry.value if entry else None

    def access_count(self, key: K) -> int:
        """How often *key* was used since it was inserted, 0 if it is not here."""
        entry = self._entries.get(key)
        return entry.access_count if entry else 0

    def insert(self, key: K, value: V) -> Entry[K, V]:
        """Add or replace an entry. Whoever inserts makes room first, with `evict_one`."""
        self.remove(key)
        entry = self._entries[key] = Entry(key, value, self._unpinned, self._clock)
        return entry

    def remove(self, key: K) -> V | None:
        """Take an entry out, pinned or not."""
        entry = self._entries.get(key)
        return None if entry is None else self._take_out(entry)

    def evict_one(self) -> tuple[V, bool] | None:
        """Take out the least recently used entry, and say whether it had expired.

        It is expired if any is, so expired entries go first. None if all are pinned.
        """
        if not self._unpinned:
            return None
        entry = next(iter(self._unpinned.values()))
        return self._take_out(entry), self._is_expired(entry)

    def expired(self) -> list[V]:
        """What `evict_expired` would take out now."""
        return [entry.value for entry in self._unpinned.values() if self._is_expired(entry)]

    def evict_expired(self) -> list[V]:
        """Take out every entry that was not used for over the idle timeout."""
        evicted: list[V] = []
        while self._unpinned and self._is_expired(entry := next(iter(self._unpinned.values()))):
            evicted.append(self._take_out(entry))
        return evicted

    def _take_out(self, entry: Entry[K, V]) -> V:
        entry.pin()
        del self._entries[entry.key]
        return entry.value

    def _is_expired(self, entry: Entry[K, V]) -> bool:
        return self._clock() - entry.last_access > self.idle_timeout
