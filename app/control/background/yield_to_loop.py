"""The event loop's next turn, for work over all pools that is done slice by slice."""

from __future__ import annotations

import asyncio
import gc


async def yield_to_loop() -> None:
    """Let everybody else run before the next slice.

    What a slice leaves behind mostly lives until the next round replaces it, and what it replaced
    is freed at once. So Python's collector, which counts the difference, runs rarely then, and
    has to look at the whole round in one stop: 50 ms for ten thousand pools. Hence it looks at
    each slice by itself, and what lives then is set aside; `app.runtime.gc_tuning` looks at that
    again. Without the look what others gave up meanwhile would be set aside too, and stay.
    """
    gc.collect()
    gc.freeze()
    await asyncio.sleep(0)
