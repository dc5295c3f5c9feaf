"""Long work in slices: other tasks run between two of them."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

# The longest time in seconds that long work may block the event loop, without its current step.
_SLICE_SECONDS = 0.002


async def yield_to_loop() -> None:
    """Let other tasks run before the next slice, and collect the slice's garbage.

    Most objects of a slice survive until the next round replaces them. So the garbage collector
    would run rarely, and then scan a whole round at once: 50 ms for ten thousand pools. Collecting
    after each slice keeps pauses short. Survivors are frozen, and `app.runtime.gc_tuning` thaws
    them. The collection comes first, so that garbage of other tasks is not frozen.
    """
    gc.collect()
    gc.freeze()
    await asyncio.sleep(0)


class TimeSlices:
    """Long work in slices of 2 ms; other tasks run between slices.

    Attributes:
        worked: seconds spent in slices, without the time of other tasks.
    """

    def __init__(self) -> None:
        self.worked = 0.0
        self._began = monotonic()

    async def end_step(self) -> None:
        """Call this after each step: it calls `yield_to_loop` if the slice is over."""
        if monotonic() - self._began > _SLICE_SECONDS:
            await self.end()

    async def end(self) -> None:
        """End the slice, and start another once other tasks had their turn."""
        self.worked += monotonic() - self._began
        await yield_to_loop()
        self._began = monotonic()


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield *items*, with a turn for the event loop after each slice; for work that keeps little.

    What keeps most of its objects uses `TimeSlices`, which also collects garbage.
    """
    began = monotonic()
    for item in items:
        yield item
        if monotonic() - began > _SLICE_SECONDS:
            await asyncio.sleep(0)
            began = monotonic()
