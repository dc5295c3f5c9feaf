"""Locks by name: changes of one tenant, or of one pool, go one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from app.domain.errors import Unavailable

_HOLD_DEADLINE = 10.0


class KeyedLocks:
    """A lock for every key; an unused one takes no memory."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of *key*: `async with locks.hold("acme"):`.

        Raises:
            Unavailable: it was held elsewhere for too long.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(_HOLD_DEADLINE):
                await lock.acquire()
        except TimeoutError as error:
            raise Unavailable(f"Another change of {key} is still in progress.") from error
        try:
            yield
        finally:
            lock.release()

    def is_held(self, key: str) -> bool:
        lock = self._locks.get(key)
        return lock is not None and lock.locked()
