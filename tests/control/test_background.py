"""Background loops: a failed tick ends none, a dead loop is reported; no test waits for real."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.control.background import Supervisor, run_every
from tests.fixtures.waiting import eventually


class Ticks:
    """Counts ticks; each can do something else."""

    def __init__(self, *deeds: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do these things one after the other, then nothing."""
        self.deeds = list(deeds)
        self.at: list[float] = []

    async def __call__(self) -> None:
        """One tick."""
        self.at.append(asyncio.get_running_loop().time())
        if self.deeds:
            await self.deeds.pop(0)()


async def fail() -> None:
    """A tick that fails."""
    raise ValueError("as it happens")


async def fail_in_group() -> None:
    """A tick of several tasks of which one fails."""
    async with asyncio.TaskGroup() as group:
        group.create_task(fail())


async def hang() -> None:
    """A tick that never ends."""
    await asyncio.Event().wait()


async def ticked(ticks: Ticks, *, seconds: float, timeout: float = 4.0) -> None:
    """Run a ten-second loop for that long."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await run_every("test", lambda: 10.0, ticks, timeout=timeout)


@pytest.mark.looptime(start=0)
async def test_ticks_come_at_their_interval_with_a_little_jitter() -> None:
    ticks = Ticks()
    await ticked(ticks, seconds=100)
    gaps = [later - earlier for earlier, later in zip(ticks.at, ticks.at[1:], strict=False)]
    assert len(ticks.at) == 10
    assert all(10.0 <= gap <= 10.6 for gap in gaps)


@pytest.mark.looptime(start=0)
async def test_a_failed_tick_does_not_end_the_loop() -> None:
    ticks = Ticks(fail, fail)
    await ticked(ticks, seconds=35)
    assert len(ticks.at) == 4


@pytest.mark.looptime(start=0)
async def test_a_hanging_tick_is_given_up_at_its_deadline() -> None:
    ticks = Ticks(hang)
    await ticked(ticks, seconds=15)
    assert len(ticks.at) == 2


@pytest.mark.looptime(start=0)
async def test_a_failed_group_of_tasks_does_not_end_the_loop_at_the_next_deadline() -> None:
    # Python 3.11.2 left a task marked as cancelled then.
    ticks = Ticks(fail_in_group, hang)
    await ticked(ticks, seconds=35)
    assert len(ticks.at) == 4


@pytest.mark.looptime(start=0)
async def test_a_tick_that_is_cancelled_from_inside_does_not_end_the_loop() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    ticks = Ticks(cancelled, fail)
    await ticked(ticks, seconds=35)
    assert len(ticks.at) == 4


@pytest.mark.looptime(start=0)
async def test_missed_ticks_are_skipped_not_made_up_for() -> None:
    async def slow() -> None:
        await asyncio.sleep(35)

    ticks = Ticks(slow)
    await ticked(ticks, seconds=50, timeout=60)
    assert len(ticks.at) == 3


async def test_a_task_that_dies_is_reported_once_and_by_name() -> None:
    deaths: list[str] = []
    loops = Supervisor(on_death=lambda: deaths.append("died"))
    loops.start("first", fail())
    loops.start("second", fail())
    loops.start("third", hang())
    await eventually(lambda: bool(deaths))
    assert loops.dead in {"first", "second"}
    await loops.stop()
    assert deaths == ["died"]


async def test_a_loop_that_somebody_cancels_is_dead() -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    deaths: list[str] = []
    loops = Supervisor(on_death=lambda: deaths.append("died"))
    loops.start("loop", cancel_itself())
    await eventually(lambda: bool(deaths))
    assert loops.dead == "loop"
    await loops.stop()


async def test_work_that_may_end_is_no_death_unless_it_fails() -> None:
    deaths: list[str] = []
    loops = Supervisor(on_death=lambda: deaths.append("died"))
    await loops.start("ends", asyncio.sleep(0), may_end=True)
    await asyncio.sleep(0)
    assert (deaths, loops.dead) == ([], None)
    loops.start("fails", fail(), may_end=True)
    await eventually(lambda: bool(deaths))
    assert loops.dead == "fails"
    waits = loops.start("waits", hang(), may_end=True)
    await loops.stop()
    assert waits.cancelled()
    assert deaths == ["died"]


async def test_a_loop_whose_tick_fails_when_it_is_cancelled_stops() -> None:
    began = asyncio.Event()

    async def fail_at_the_end() -> None:
        try:
            began.set()
            await hang()
        finally:
            await fail()

    deaths: list[str] = []
    loops = Supervisor(on_death=lambda: deaths.append("died"))
    loops.start_every("loop", lambda: 10.0, fail_at_the_end, timeout=60)
    await began.wait()
    async with asyncio.timeout(60):
        await loops.stop()
    assert deaths == []


async def test_stopping_is_no_death_and_safe_twice() -> None:
    deaths: list[str] = []
    loops = Supervisor(on_death=lambda: deaths.append("died"))
    loops.start("one", hang())
    await loops.stop()
    await loops.stop()
    assert (deaths, loops.dead) == ([], None)
