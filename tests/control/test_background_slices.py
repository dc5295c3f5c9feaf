"""Work done slice by slice: what it leaves is set aside, what others gave up meanwhile is not."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from app.control.background import yield_to_loop


class Ring:
    """Garbage that only the collector frees."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def only_collected_when_the_test_says_so() -> Iterator[None]:
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


async def test_what_lives_is_set_aside() -> None:
    kept = [[number] for number in range(1000)]
    before = gc.get_freeze_count()
    await yield_to_loop()
    assert gc.get_freeze_count() >= before + len(kept)


async def test_what_was_given_up_is_freed_before() -> None:
    gone = weakref.ref(Ring())
    assert gone() is not None
    await yield_to_loop()
    assert gone() is None
