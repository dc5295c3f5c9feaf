"""How many connections to one server are being opened at a time, and whose is next.

Logins cost the server and us more than the work they are for, so they queue. Those of tenants
who hold next to nothing go first, and the last place is left to them: whoever opens many does
not make the others wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ConnectGate:
    """At most *limit* attempts at a time."""

    def __init__(self, limit: int) -> None:
        """Let *limit* through; all but one of them, if there are several, need not be first."""
        self._limit = limit
        self._others = max(1, limit - 1)
        self._inside = 0
        self._first: deque[asyncio.Future[None]] = deque()
        self._queue: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def passing(self, *, first: bool) -> AsyncIterator[None]:
        """Wait for a place, ahead of those who are not *first*, and keep it inside."""
        place = asyncio.get_running_loop().create_future()
        (self._first if first else self._queue).append(place)
        self._admit()
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled():
                self._leave()
            raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        """Let in whoever may come in now; those who gave up are forgotten."""
        for queue, limit in ((self._first, self._limit), (self._queue, self._others)):
            while queue and (queue[0].done() or self._inside < limit):
                place = queue.popleft()
                if not place.done():
                    self._inside += 1
                    place.set_result(None)
