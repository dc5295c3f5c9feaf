"""Limits how many connections to a server are opened, or closed for others, at a time.

A login costs the server and us more processor time than the work it is for. A slow login waits for
a lock or a response and costs nothing: it gives its slot to the next one, as does a slow closing.
"""

from __future__ import annotations

from collections.abc import Callable

from app.pools.scheduling.clock import Clock, LoopClock

# A login that only computes has ended by then, even on a busy machine.
_LONG = 1.0


class ConnectLimiter:
    """At most *limit* slots in use; slots held longer than *long* seconds do not count.

    Attributes:
        limit: how many slots there are.
        busy: how many are in use.
    """

    def __init__(self, limit: int = 4, clock: Clock | None = None, *, long: float = _LONG) -> None:
        self.limit = limit
        self.busy = 0
        self._clock = clock or LoopClock()
        self._long = long
        self._on_given_up: Callable[[], None] | None = None

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self.limit - self.busy

    @property
    def most_of_one(self) -> int:
        """How many slots one pool may use: it leaves one to the others, if there are several."""
        return max(1, self.limit - 1)

    def when_given_up(self, call: Callable[[], None]) -> None:
        """Call *call* whenever a slow holder has given up its slot."""
        self._on_given_up = call

    def take(self) -> ConnectSlot:
        self.busy += 1
        return ConnectSlot(self, self._clock, self._long)

    def slot_released(self, *, given_up: bool) -> None:
        """Count a slot as free again; `ConnectSlot` calls this."""
        self.busy -= 1
        if given_up and self._on_given_up is not None:
            self._on_given_up()


class ConnectSlot:
    """One slot; it is in use until it is released or given up."""

    __slots__ = ("_limiter", "_timer")

    def __init__(self, limiter: ConnectLimiter, clock: Clock, long: float) -> None:
        """Hold one of *limiter*'s slots for *long* seconds at most."""
        self._limiter: ConnectLimiter | None = limiter
        self._timer = clock.call_later(long, self.give_up)

    def release(self) -> None:
        """Free the slot when its work is done; safe to call again."""
        self._end(given_up=False)

    def give_up(self) -> None:
        """Free the slot because its work is slow: others need not wait for it."""
        self._end(given_up=True)

    def _end(self, *, given_up: bool) -> None:
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            self._timer.cancel()
            limiter.slot_released(given_up=given_up)
