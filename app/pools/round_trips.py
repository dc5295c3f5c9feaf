"""A deadline for every round trip of a pool's leases, with one timer for all of them.

A timer of its own for each would cost a lease as much as all the rest of the pool does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

# How late a deadline may be noticed, in seconds: they are counted in whole ones.
_LOOK_EVERY = 0.25


class Cuttable(Protocol):
    """What runs a round trip."""

    def cut(self) -> None:
        """End it at once: whoever waits for its answer gets a connection error."""


class RoundTrips:
    """Those under way, and when each has to be over."""

    __slots__ = ("_due", "_timer")

    def __init__(self) -> None:
        """None is under way."""
        self._due: dict[Cuttable, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: Cuttable, seconds: float) -> None:
        """*connection* waits for an answer, and is cut unless `end` comes within *seconds*."""
        self._due[connection] = monotonic() + seconds
        if self._timer is None:
            self._timer = _later(self._look)

    def end(self, connection: Cuttable) -> None:
        """The answer came, or will not."""
        self._due.pop(connection, None)

    def _look(self) -> None:
        now = monotonic()
        for connection in [each for each, due in self._due.items() if due <= now]:
            del self._due[connection]
            connection.cut()
        self._timer = _later(self._look) if self._due else None


def _later(callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(_LOOK_EVERY, callback)
