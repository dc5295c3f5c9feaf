"""Python's garbage collector, with short pauses of the event loop.

A full collection visits every live object, and blocks the loop in that time: for 0.4 s with ten
thousand open pools. It finds almost nothing, because garbage in cycles is mostly young. So objects
that survive a long collection are frozen (`gc.freeze`), and the next one does not visit them. Since
Python starts a full collection whenever a quarter was added, none takes much longer.

Frozen objects that later become garbage in a cycle would stay for ever. So once twice as much is
allocated as after the last complete collection, everything is visited again. That is a long pause,
but there is only one for each doubling, and garbage never exceeds the live objects, or the size of
ten thousand pools. The allocated blocks are known at once; counting frozen objects
(`gc.get_freeze_count`) walks over all of them, which takes 50 ms for a million objects.

Requests leave no garbage in cycles. But by Python's default, the objects of those under way start a
collection of young objects after each twenty.
"""

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

_OLDEST = 2
# New objects that start a collection: it takes about a millisecond.
_MAX_NEW = 10_000
# About fifty thousand objects. The loop may stand still for twenty milliseconds.
_LONG_SECONDS = 0.005
# Ten thousand open pools are 1,600,000 blocks, and a closed connection leaves five objects in a
# cycle.
_MIN_BLOCKS = 3_500_000


@contextmanager
def tuned_gc(long_seconds: float = _LONG_SECONDS, min_blocks: int = _MIN_BLOCKS) -> Iterator[None]:
    """Freeze what survives a full collection of more than *long_seconds*, and what lives already.

    Everything is visited again once twice as many blocks of memory are allocated as the last time,
    but at least *min_blocks*.
    """
    gc.collect()
    gc.freeze()
    freezer = _Freezer(long_seconds, min_blocks)
    gc.callbacks.append(freezer)
    default = gc.get_threshold()
    gc.set_threshold(_MAX_NEW, *default[1:])
    try:
        yield
    finally:
        gc.set_threshold(*default)
        gc.callbacks.remove(freezer)
        gc.unfreeze()


class _Freezer:
    """A callback of the collector, before and after each collection."""

    def __init__(self, long_seconds: float, min_blocks: int) -> None:
        self._long_seconds = long_seconds
        self._min_blocks = min_blocks
        self._started_at = float("-inf")
        self._visits_everything = False
        self._max_blocks = self._next_max()

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        if info["generation"] != _OLDEST:
            return
        if phase == "start":
            self._started_at = perf_counter()
        elif self._visits_everything:
            gc.freeze()
            self._visits_everything = False
            self._max_blocks = self._next_max()
        elif perf_counter() - self._started_at > self._long_seconds:
            gc.freeze()
            if sys.getallocatedblocks() > self._max_blocks:
                gc.unfreeze()
                self._visits_everything = True

    def _next_max(self) -> int:
        return max(self._min_blocks, 2 * sys.getallocatedblocks())
