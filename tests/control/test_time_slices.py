"""Work in slices: what it keeps is frozen, what others dropped is freed before."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from app.control import time_slices
from app.control.time_slices import TimeSlices, yield_to_loop


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


async def test_others_run_once_a_slice_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now, others = 100.0, 0
    monkeypatch.setattr(time_slices, "monotonic", lambda: now)

    async def count_turns() -> None:
        nonlocal others, now
        while True:
            others += 1
            now += 5.0
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns(), name="others")
    slices = TimeSlices()
    for _ in range(3):
        now += 0.0015
        await slices.end_step()
    counting.cancel()
    # The second step ends the slice; the third one is in the next.
    assert others == 1
    assert slices.worked == pytest.approx(0.003)


async def test_items_of_little_work_come_in_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    now, turns = 100.0, 0
    monkeypatch.setattr(time_slices, "monotonic", lambda: now)

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns(), name="others")
    seen = []
    async for item in time_slices.in_slices(range(5)):
        seen.append((item, turns))
        now += 0.0015
    counting.cancel()
    assert seen == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
