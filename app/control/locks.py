"""Locks by name: changes of one tenant, or of one pool, go one at a time."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class KeyedLocks:
    """A lock for every key; those nobody holds or awaits take no memory."""

    def __init__(self) -> None:
        """Begin with none."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: str) -> asyncio.Lock:
        """The lock of *key*."""
        return self._locks.setdefault(key, asyncio.Lock())
