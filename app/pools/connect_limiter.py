"""How many connections to one server are being opened, or closed for others, at a time.

A login costs the server and us more than the work it is for. A slow one waits for a lock or a
response and costs nothing: it gives up its slot to the next, and so does a slow closing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

# A login that computes is over by then, also on a busy machine.
_LONG = 1.0


class Timer(Protocol):
    """What `Clock.call_later` has set."""

    def cancel(self) -> None:
        """Do not call back."""


class Clock(Protocol):
    """What timers need of an event loop."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back in *delay* seconds."""


class LoopClock:
    """The clock of the pools, and the timers of the running loop."""

    def time(self) -> float:
        """Monotonic seconds."""
        return monotonic()

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back in *delay* seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)


class ConnectLimiter:
    """At most *limit* slots in use, those not counted that are held for *long* seconds already.

    Attributes:
        limit: how many slots there are.
        busy: how many of them are in use.
    """

    def __init__(self, limit: int = 4, clock: Clock | None = None, *, long: float = _LONG) -> None:
        """Begin with every slot free."""
        self.limit = limit
        self.busy = 0
        self._clock = clock or LoopClock()
        self._long = long
        self._on_given_up: Callable[[], None] | None = None

    @property
    def free(self) -> int:
        """How many can be taken."""
        return self.limit - self.busy

    @property
    def most_of_one(self) -> int:
        """How many one pool may use: it leaves one to the others, if there are several."""
        return max(1, self.limit - 1)

    def when_given_up(self, call: Callable[[], None]) -> None:
        """Call back whenever a slow holder has given its slot up."""
        self._on_given_up = call

    def take(self) -> ConnectSlot:
        self.busy += 1
        return ConnectSlot(self, self._clock, self._long)

    def slot_released(self, *, given_up: bool) -> None:
        """A slot is free again; for `ConnectSlot`."""
        self.busy -= 1
        if given_up and self._on_given_up is not None:
            self._on_given_up()


class ConnectSlot:
    """One slot; it is in use until it is released, or given up."""

    __slots__ = ("_limiter", "_timer")

    def __init__(self, limiter: ConnectLimiter, clock: Clock, long: float) -> None:
        """Hold one of *limiter*'s slots for *long* seconds at most."""
        self._limiter: ConnectLimiter | None = limiter
        self._timer = clock.call_later(long, self.give_up)

    def release(self) -> None:
        """What it was taken for is over; safe to call again."""
        self._end(given_up=False)

    def give_up(self) -> None:
        """What it was taken for is slow: others need not wait."""
        self._end(given_up=True)

    def _end(self, *, given_up: bool) -> None:
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            self._timer.cancel()
            limiter.slot_released(given_up=given_up)
