"""Python's garbage collector, held to short stops of the event loop.

A full collection looks at everything that lives, and stops the loop meanwhile: for 0.4 s when ten
thousand pools are open. It finds next to nothing there: what is given up in cycles is mostly
young. So what survived a collection that took long is set aside (`gc.freeze`) and not looked at
in the next one; since Python starts those whenever a quarter was added, none takes much longer.

What was set aside and is given up in a cycle later would stay for ever. So once twice as much is
set aside as after the last look at everything, everything is looked at again: a long stop, but
one for each doubling only, and garbage never outgrows what lives, or what ten thousand pools are.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

_OLDEST = 2
# Seconds; about fifty thousand objects. Twenty milliseconds is what the loop may stand still.
_LONG = 0.005
# Objects; ten thousand open pools are 870,000, and a closed connection leaves five in a cycle.
_FEW = 1_500_000


@contextmanager
def tuned_gc(long_seconds: float = _LONG, min_frozen: int = _FEW) -> Iterator[None]:
    """Set aside what survives a full collection of more than *long* seconds.

    Everything is looked at again once twice as much is set aside as the last time, but at least
    *few* objects. What lives already is set aside at once.
    """
    gc.collect()
    gc.freeze()
    keeping = _Keeping(long_seconds, min_frozen)
    gc.callbacks.append(keeping)
    try:
        yield
    finally:
        gc.callbacks.remove(keeping)
        gc.unfreeze()


class _Keeping:
    """Called by the collector before and after each collection."""

    def __init__(self, long: float, few: int) -> None:
        self._long = long
        self._few = few
        self._began = 0.0
        self._sees_everything = False
        self._most = self._enough()

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        if info["generation"] != _OLDEST:
            return
        if phase == "start":
            self._began = perf_counter()
        elif self._sees_everything:
            gc.freeze()
            self._sees_everything = False
            self._most = self._enough()
        elif perf_counter() - self._began > self._long:
            gc.freeze()
            if gc.get_freeze_count() > self._most:
                gc.unfreeze()
                self._sees_everything = True

    def _enough(self) -> int:
        return max(self._few, 2 * gc.get_freeze_count())
