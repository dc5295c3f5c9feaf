"""Event loop lag: tells a starved loop from database trouble.

When the loop is blocked for seconds, every deadline expires although the server is well. So a
timeout counts only if the loop was not late.
"""

import asyncio
from collections import deque
from time import monotonic

_EVERY = 0.1
# How many measurements are kept: about ten seconds.
_REMEMBERED = 100


class EventLoopLag:
    """Measures lag: how much longer does a short sleep take?"""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    @property
    def latest(self) -> float:
        """Seconds by which the loop was late at the last measurement."""
        return self._seen[-1][1] if self._seen else 0.0

    @property
    def worst(self) -> float:
        """The largest lag in about the last ten seconds, in seconds."""
        return max((late for _, late in self._seen), default=0.0)

    def worst_since(self, moment: float) -> float:
        """The largest lag since the monotonic time *moment*, in seconds."""
        return max((late for at, late in self._seen if at >= moment), default=0.0)

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            due = monotonic() + _EVERY
            await asyncio.sleep(_EVERY)
            now = monotonic()
            self._seen.append((now, max(0.0, now - due)))
