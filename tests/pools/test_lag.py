"""The event loop's lateness is measured, and what it explains is said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.pools.lag import LoopLag
from tests.fixtures.waiting import eventually


@pytest.fixture
async def lag() -> AsyncIterator[LoopLag]:
    """A measurement that goes on during the test."""
    lag = LoopLag()
    watching = asyncio.create_task(lag.watch(), name="loop lag")
    try:
        yield lag
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def test_a_blocked_loop_is_noticed_and_remembered(lag: LoopLag) -> None:
    began = time.monotonic()
    await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251 - this is the fault
    await eventually(lambda: lag.worst > 0.25)
    assert lag.since(began) == lag.worst
    await eventually(lambda: lag.now < lag.worst)


def test_nothing_measured_is_no_lag() -> None:
    lag = LoopLag()
    assert (lag.now, lag.worst, lag.since(0)) == (0, 0, 0)
