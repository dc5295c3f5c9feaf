"""A deadline for every round trip of a pool's leases, with one timer for all of them.

A timer of its own for each would cost a lease as much as all the rest of the pool does.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

# How late a deadline may be noticed, in seconds.
_LOOK_EVERY = 0.25
# A look as late as this came after a standstill of our own loop: answers that arrived meanwhile
# have until the next look to be taken.
_LATE = 0.1


class Terminable(Protocol):
    """What runs a round trip."""

    def terminate(self) -> None:
        """End it at once: its caller gets a connection error."""


class StatementDeadlines:
    """The round trips under way, and when each has to be over."""

    __slots__ = ("_due", "_graced", "_look_at", "_timer")

    def __init__(self) -> None:
        self._due: dict[Terminable, float] = {}
        self._look_at = 0.0
        self._graced = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: Terminable, seconds: float) -> None:
        """*connection* is terminated unless `end` is called within *seconds*."""
        now = monotonic()
        self._due[connection] = now + seconds
        if self._timer is None:
            self._look_again(now)

    def end(self, connection: Terminable) -> None:
        """The response came, or will not."""
        self._due.pop(connection, None)

    def stop(self) -> None:
        """Stop the timer once nothing is under way; `begin` starts it again."""
        if self._timer is not None and not self._due:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = monotonic()
        self._graced = not self._graced and now - self._look_at > _LATE
        if not self._graced:
            for connection in [each for each, due in self._due.items() if due <= now]:
                del self._due[connection]
                connection.terminate()
        self._timer = None
        if self._due:
            self._look_again(now)

    def _look_again(self, now: float) -> None:
        self._look_at = now + _LOOK_EVERY
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look)
