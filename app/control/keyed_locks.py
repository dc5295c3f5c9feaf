"""Locks by name: changes of one tenant, pool or node wait for each other, and for no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

from app.domain.errors import Unavailable

_HOLD_DEADLINE = 10.0


class KeyedLocks:
    """A lock for every tenant and pool, so that each has one change at a time.

    An unused one takes no memory.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of *key*: `async with locks.hold("acme"):`.

        Raises:
            Unavailable: another task held it for too long.
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

    @asynccontextmanager
    async def hold_if_free(self, key: str) -> AsyncIterator[bool]:
        """Hold the lock of *key* unless another task has or awaits it; yields whether it is held.

        For work that a later tick can do as well: `async with locks.hold_if_free("acme") as held:`.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        is_ours = False
        with suppress(TimeoutError):
            # A free lock is taken without a pause. One that was just released may have an heir
            # already.
            async with asyncio.timeout(0.0):
                is_ours = await lock.acquire()
        try:
            yield is_ours
        finally:
            if is_ours:
                lock.release()

    def is_held(self, key: str) -> bool:
        lock = self._locks.get(key)
        return lock is not None and lock.locked()
