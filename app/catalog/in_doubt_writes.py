"""Writes in doubt: their commit had begun, and its response was lost, so they may be stored.

Clients soon repeat such a request. If none does, the row is read again.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.catalog.database import Database

# Seconds within which clients repeat a request.
REPEATED_WITHIN = 30.0

K = TypeVar("K")


class InDoubtWrites(Generic[K]):
    """The writes of a table that are in doubt, by the keys of their rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._failed_at: dict[K, float] = {}
        # Those that created their row, or are about to.
        self._creations: set[K] = set()

    def may_have_created(self, key: K) -> bool:
        return key in self._failed_at and key in self._creations

    def note_creation(self, key: K) -> None:
        """Note that the write of *key* under way creates the row."""
        self._creations.add(key)

    @property
    def keys(self) -> tuple[K, ...]:
        """Keys of rows that `reading` may find changed.

        Nobody has repeated the write: that succeeds while only its caller knows of it.
        """
        since = monotonic() - REPEATED_WITHIN
        return tuple(key for key, failed_at in self._failed_at.items() if failed_at <= since)

    @asynccontextmanager
    async def writing(self, key: K) -> AsyncIterator[AsyncConnection]:
        """A transaction of the database that writes the row of *key*."""
        is_committing = is_certain = False
        try:
            async with self._database.transaction() as connection:
                yield connection
                is_committing = True
            is_certain = True
        finally:
            if is_committing and not is_certain:
                self._failed_at[key] = monotonic()
            elif is_certain or key not in self._failed_at:
                self._forget(key)

    @asynccontextmanager
    async def reading(self, key: K) -> AsyncIterator[AsyncConnection]:
        """A transaction that locks and reads the row of *key*, which is then not in doubt.

        Reading with a lock waits for a write that has not ended yet.
        """
        async with self._database.transaction() as connection:
            yield connection
        self._forget(key)

    def _forget(self, key: K) -> None:
        self._failed_at.pop(key, None)
        self._creations.discard(key)
