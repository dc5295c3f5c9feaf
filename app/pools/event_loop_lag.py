"""How late the event loop runs, so that a starved loop is not mistaken for database trouble.

A loop blocked for seconds makes every deadline expire while the server is well, so a timeout counts
only if the loop was not late.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

_EVERY = 0.1
# As many measurements as are remembered: some ten seconds.
_REMEMBERED = 100


class EventLoopLag:
    """Measured by sleeping a little: how much longer did it take?"""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    @property
    def latest(self) -> float:
        """Seconds by which the loop was late when last measured."""
        return self._seen[-1][1] if self._seen else 0.0

    @property
    def worst(self) -> float:
        """The most seconds by which it was late within about the last ten seconds."""
        return max((late for _, late in self._seen), default=0.0)

    def worst_since(self, moment: float) -> float:
        """The most seconds by which it was late since the monotonic time *moment*."""
        return max((late for at, late in self._seen if at >= moment), default=0.0)

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            due = monotonic() + _EVERY
            await asyncio.sleep(_EVERY)
            now = monotonic()
            self._seen.append((now, max(0.0, now - due)))
