"""The time that timers of the pools follow. Tests have a clock of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol


class Timer(Protocol):
    """The return value of `Clock.call_later`."""

    def cancel(self) -> None:
        """Cancel the call."""


class Clock(Protocol):
    """The part of an event loop that timers need."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call *callback* in *delay* seconds."""


class LoopClock:
    """The pools' clock: monotonic time, and timers of the running loop."""

    def time(self) -> float:
        """Monotonic seconds."""
        return monotonic()

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call *callback* in *delay* seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)
