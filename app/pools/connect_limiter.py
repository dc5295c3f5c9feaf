"""How many connections to one server are being opened at a time, and which is next.

A login costs the server and us more than the work it is for, so logins queue. Those of tenants that
hold next to nothing go first, and the last place is left to them: a tenant that opens many does not
make the others wait. A slow login waits for a lock or a response and costs nothing: it gives up its
place to the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# A login that computes is over by then, also on a busy machine.
_LONG = 1.0


class ConnectLimiter:
    """At most *limit* attempts at a time, those not counted that take *long* seconds already."""

    def __init__(self, limit: int, *, long: float = _LONG) -> None:
        """Let *limit* through; all but one of them, if there are several, need not be first."""
        self._limit = limit
        self._long = long
        self._others = max(1, limit - 1)
        self._inside: set[asyncio.Future[None]] = set()
        self._first: deque[asyncio.Future[None]] = deque()
        self._queue: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def slot(self, *, first: bool) -> AsyncIterator[None]:
        """Wait for a place, ahead of those who are not *first*, and keep it for a while."""
        loop = asyncio.get_running_loop()
        place = loop.create_future()
        (self._first if first else self._queue).append(place)
        self._admit()
        try:
            await place
            giving_up = loop.call_later(self._long, self._leave, place)
            try:
                yield
            finally:
                giving_up.cancel()
        finally:
            self._leave(place)

    def _leave(self, place: asyncio.Future[None]) -> None:
        """Give *place* up, unless that was done before."""
        if place in self._inside:
            self._inside.remove(place)
            self._admit()

    def _admit(self) -> None:
        """Give places to the next attempts; cancelled ones are dropped."""
        for queue, limit in ((self._first, self._limit), (self._queue, self._others)):
            while queue and (queue[0].done() or len(self._inside) < limit):
                place = queue.popleft()
                if not place.done():
                    self._inside.add(place)
                    place.set_result(None)
