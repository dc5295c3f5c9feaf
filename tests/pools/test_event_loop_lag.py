"""The event loop's lag is measured, and reported where it explains something."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.pools.event_loop_lag import EventLoopLag
from tests.fixtures.waiting import eventually


@pytest.fixture
async def lag() -> AsyncIterator[EventLoopLag]:
    """A measurement that runs during the test."""
    lag = EventLoopLag()
    watching = asyncio.create_task(lag.measure(), name="loop lag")
    try:
        yield lag
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def test_a_blocked_loop_is_noticed_and_remembered(lag: EventLoopLag) -> None:
    began = time.monotonic()
    await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251 - this is the fault
    await eventually(lambda: lag.worst > 0.25)
    assert lag.worst_since(began) == lag.worst
    await eventually(lambda: lag.latest < lag.worst)


def test_nothing_measured_is_no_lag() -> None:
    lag = EventLoopLag()
    assert (lag.latest, lag.worst, lag.worst_since(0)) == (0, 0, 0)
