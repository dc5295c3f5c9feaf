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


class _Entry(Generic[K, V]):
    __slots__ = ("access_count", "key", "last_access", "pins", "value")

    def __init__(self, key: K, value: V, now: float) -> None:
        self.key = key
        self.value = value
        self.last_access = now
        self.access_count = 1
        self.pins = 0


class TenantLruCache(Generic[K, V]):
    """Up to *max_size* entries, the least recently used going first."""

    def __init__(
        self, max_size: int, idle_timeout: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Hold *max_size* entries; one not used for over *idle_timeout* seconds is expired."""
        self.max_size = max_size
        self.idle_timeout = idle_timeout
        self._clock = clock
        self._entries: dict[K, _Entry[K, V]] = {}
        self._unpinned: OrderedDict[K, _Entry[K, V]] = OrderedDict()

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
        entry.access_count += 1
        self._touch(entry)
        return entry.value

    def peek(self, key: K) -> V | None:
        """The value without counting a use, or None."""
        entry = self._entries.get(key)
        return entry.value if entry else None

    def access_count(self, key: K) -> int:
        """How often *key* was used since it was inserted, 0 if it is not here."""
        entry = self._entries.get(key)
        return entry.access_count if entry else 0

    def insert(self, key: K, value: V) -> None:
        """Add or replace an entry. Whoever inserts makes room first, with `evict_one`."""
        self.remove(key)
        entry = _Entry(key, value, self._clock())
        self._entries[key] = entry
        self._unpinned[key] = entry

    def remove(self, key: K) -> V | None:
        """Take an entry out, pinned or not."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._unpinned.pop(key, None)
        return entry.value

    def pin(self, key: K) -> None:
        """Keep *key* from being evicted until it is unpinned as often as it was pinned."""
        entry = self._entries[key]
        entry.pins += 1
        self._unpinned.pop(key, None)

    def unpin(self, key: K) -> None:
        """Undo one pin; the last one counts as a use. An entry removed meanwhile is ignored."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.pins -= 1
        if entry.pins == 0:
            entry.last_access = self._clock()
            self._unpinned[key] = entry

    def evict_one(self) -> tuple[V, bool] | None:
        """Take out the least recently used entry, and say whether it had expired.

        It is expired if any is, so expired entries go first. None if all are pinned.
        """
        if not self._unpinned:
            return None
        key, entry = self._unpinned.popitem(last=False)
        del self._entries[key]
        return entry.value, self._is_expired(entry)

    def evict_expired(self) -> list[V]:
        """Take out every entry that was not used for over the idle timeout."""
        evicted: list[V] = []
        while self._unpinned and self._is_expired(next(iter(self._unpinned.values()))):
            key, entry = self._unpinned.popitem(last=False)
            del self._entries[key]
            evicted.append(entry.value)
        return evicted

    def _touch(self, entry: _Entry[K, V]) -> None:
        entry.last_access = self._clock()
        if entry.key in self._unpinned:
            self._unpinned.move_to_end(entry.key)

    def _is_expired(self, entry: _Entry[K, V]) -> bool:
        return self._clock() - entry.last_access > self.idle_timeout
