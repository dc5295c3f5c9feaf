"""A deadline for every round trip of a pool's leases, with one timer for all.

One timer for each round trip would cost a lease as much as the rest of the pool.
"""

import asyncio
from time import monotonic
from typing import Protocol

# How much later than its deadline a round trip may be noticed, in seconds.
_LOOK_EVERY = 0.25
# If a look is this late, our own loop stood still: answers that arrived in the meantime can be
# taken until the next look.
_LATE = 0.1


class Terminable(Protocol):
    """The connection that runs a round trip."""

    def terminate(self) -> None:
        """End it at once; its caller gets a connection error."""


class StatementDeadlines:
    """The round trips under way, and their deadlines."""

    __slots__ = ("_due", "_graced", "_look_at", "_timer")

    def __init__(self) -> None:
        self._due: dict[Terminable, float] = {}
        self._look_at = 0.0
        self._graced = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: Terminable, seconds: float) -> None:
        """Terminate *connection* unless `end` is called within *seconds*."""
        now = monotonic()
        self._due[connection] = now + seconds
        if self._timer is None:
            self._look_again(now)

    def end(self, connection: Terminable) -> None:
        """Note that the response came, or will not come."""
        self._due.pop(connection, None)

    def stop(self) -> None:
        """Stop the timer when nothing is under way; `begin` starts it again."""
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
