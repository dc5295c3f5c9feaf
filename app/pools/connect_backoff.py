"""Backoff: after a pool failed to open a connection, it pauses, then tries one.

A failure concerns only this pool until its server says otherwise. So each pool has its own backoff,
with full jitter.
"""

import asyncio
import random
from collections.abc import Callable

from app.domain.errors import Unavailable

# In seconds: the longest pause after the first failure, and after many.
_FIRST = 0.25
_LAST = 5.0


class ConnectBackoff:
    """The pauses between a pool's attempts to open a connection while they fail.

    Attributes:
        error: why the latest attempt failed; None if it succeeded.
    """

    def __init__(self, try_again: Callable[[], None]) -> None:
        """Call *try_again* at the end of each pause."""
        self.error: Unavailable | None = None
        self._try_again = try_again
        self._longest = _FIRST
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_pausing(self) -> bool:
        return self._timer is not None

    def failed(self, error: Unavailable, *, pause: bool) -> None:
        """Note a failed attempt; *pause* before the next one."""
        self.error = error
        if pause and self._timer is None:
            seconds = random.uniform(0, self._longest)  # noqa: S311 - full jitter
            self._timer = asyncio.get_running_loop().call_later(seconds, self.resume)
            self._longest = min(self._longest * 2, _LAST)

    def succeeded(self) -> None:
        self.error = None
        self._longest = _FIRST

    def resume(self) -> None:
        """End a pause, and try again."""
        self.stop()
        self._try_again()

    def stop(self) -> None:
        """End a pause, without another attempt."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
