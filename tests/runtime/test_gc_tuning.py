"""Garbage collection: what survived a long one is not scanned again and again."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from app.runtime.gc_tuning import tuned_gc


@pytest.fixture(autouse=True)
def only_collected_when_the_test_says_so() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def many() -> list[list[int]]:
    return [[number] for number in range(1000)]


def test_requests_under_way_start_no_collection() -> None:
    default = gc.get_threshold()
    with tuned_gc():
        assert gc.get_threshold() == (10_000, *default[1:])
    assert gc.get_threshold() == default


def test_what_survives_a_long_collection_is_set_aside() -> None:
    with tuned_gc(long_seconds=0.0):
        before, alive = gc.get_freeze_count(), many()
        gc.collect()
        assert gc.get_freeze_count() >= before + len(alive)


def test_a_short_collection_freezes_nothing() -> None:
    with tuned_gc(long_seconds=1e9):
        before, alive = gc.get_freeze_count(), many()
        gc.collect()
        assert alive
        assert gc.get_freeze_count() <= before


def test_a_collection_of_young_objects_sets_nothing_aside() -> None:
    with tuned_gc(long_seconds=0.0):
        before, alive = gc.get_freeze_count(), many()
        gc.collect(1)
        assert alive
        assert gc.get_freeze_count() <= before


# In a process of its own: that of the tests is large, and takes long to double.
DOUBLING = """
import gc, sys, weakref
from app.runtime.gc_tuning import tuned_gc

class Ring:
    def __init__(self):
        self.me = self

gc.disable()
with tuned_gc(long_seconds=0.0, min_blocks=0):
    ring = Ring()
    gone = weakref.ref(ring)
    gc.collect()
    del ring
    gc.collect()
    assert gone() is not None, "it was set aside"
    begun, alive = sys.getallocatedblocks(), []
    while gone() is not None:
        assert sys.getallocatedblocks() <= 2.2 * begun, "it should have been looked at again"
        alive += [[number] for number in range(1000)]
        gc.collect()
    assert sys.getallocatedblocks() > 1.8 * begun
    assert gc.get_freeze_count() > len(alive)
"""


def test_what_dies_after_it_was_set_aside_is_freed_once_that_has_doubled() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DOUBLING], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_set_aside_is_never_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting a million objects stops the loop for longer than the collection did."""
    count = Mock(wraps=gc.get_freeze_count)
    monkeypatch.setattr(gc, "get_freeze_count", count)
    with tuned_gc(long_seconds=0.0):
        gc.collect()
    assert not count.called


def test_nothing_is_set_aside_any_more_at_the_end() -> None:
    callbacks = list(gc.callbacks)
    with tuned_gc():
        assert gc.get_freeze_count()
    assert gc.get_freeze_count() == 0
    assert gc.callbacks == callbacks
