"""Creations that may have been committed, though the response was lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.domain.errors import CatalogUnavailable

# Remembered of a table; a client repeats a request soon.
_MOST = 1000


class UnconfirmedCreations:
    """Those of one table, by key. They can be repeated, also by who creates and never changes.

    Nobody knows of a creation without a response: reads do not show it either.
    """

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}

    @asynccontextmanager
    async def creation(
        self, key: str, expected_generation: int | None
    ) -> AsyncIterator[int | None]:
        """Around a write's transaction: the generation that it is to expect, None for any."""
        is_repetition = expected_generation == 0 and key in self._keys
        try:
            yield None if is_repetition else expected_generation
        except CatalogUnavailable:
            if not expected_generation:
                self._keys[key] = None
                if len(self._keys) > _MOST:
                    del self._keys[next(iter(self._keys))]
            raise
        self._keys.pop(key, None)
