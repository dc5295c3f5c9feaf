"""A pause between slices of work over all pools, for the event loop and the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")


async def yield_to_loop() -> None:
    """Let other tasks run before the next slice, and collect the slice's garbage.

    Most objects from a slice survive until the next round replaces them, so the garbage collector
    would run rarely and then scan a whole round at once: 50 ms for ten thousand pools. Collecting
    per slice keeps pauses short; survivors are frozen, and `app.runtime.gc_tuning` thaws them.
    The collection comes first so that garbage of other tasks is not frozen too.
    """
    gc.collect()
    gc.freeze()
    await asyncio.sleep(0)


async def in_slices(items: Iterable[T], size: int) -> AsyncIterator[T]:
    """*items*, with a turn for the event loop after each *size* of them."""
    for count, item in enumerate(items, start=1):
        yield item
        if count % size == 0:
            await asyncio.sleep(0)
