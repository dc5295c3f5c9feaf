"""Trust: how long an active instance may act without an answer from the catalog.

The clock also runs while the machine is suspended, so a process that wakes up no longer trusts its
last renewal.
"""

import time
from collections.abc import Callable
from math import inf

# Only Linux has this clock; elsewhere a suspension is not noticed.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_time() -> float:
    """Seconds since the machine started, including suspended time."""
    return time.clock_gettime(_CLOCK)


class Trust:
    """Whether this instance may open connections to servers."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = boot_time) -> None:
        """Each renewal is valid for *seconds*; inf: for ever."""
        self.clock = clock
        self._seconds = seconds
        self._from = inf
        self._until = -inf
        self._revoked = False

    def __repr__(self) -> str:
        return f"<Trust {'valid' if self.is_valid() else 'not valid'}>"

    def is_valid(self) -> bool:
        return self._from <= self.clock() < self._until and not self._revoked

    def begin(self, *, after: float) -> None:
        """Start, but not before *after* seconds, when the predecessor's trust has ended."""
        self._from = self.clock() + after
        self._until = -inf
        self._revoked = False

    @property
    def wait(self) -> float:
        """Seconds until the predecessor's trust has ended."""
        return max(0.0, self._from - self.clock())

    def renew(self, started: float) -> None:
        """Note a successful renewal that started at the time *started*."""
        self._until = max(self._until, started + self._seconds)

    def revoke(self) -> None:
        """End the trust now, whenever it was renewed."""
        self._revoked = True
