"""Deadlines of round trips: many of them, and one timer."""

import asyncio
import time

import pytest

from app.pools.statement_deadlines import StatementDeadlines


class Wire:
    """Remembers when it was cut."""

    def __init__(self) -> None:
        self.cut_at: float | None = None

    def terminate(self) -> None:
        self.cut_at = asyncio.get_running_loop().time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines read the loop's clock, which these tests move."""
    monkeypatch.setattr(
        "app.pools.statement_deadlines.monotonic", lambda: asyncio.get_running_loop().time()
    )


@pytest.mark.looptime
async def test_only_what_is_overdue_is_cut(clock: None) -> None:
    trips, slow, quick, late = StatementDeadlines(), Wire(), Wire(), Wire()
    trips.begin(slow, 2.0)
    trips.begin(quick, 2.0)
    await asyncio.sleep(1.0)
    trips.begin(late, 2.0)
    trips.end(quick)
    await asyncio.sleep(1.5)
    assert slow.cut_at is not None
    assert 2.0 <= slow.cut_at <= 2.3
    assert quick.cut_at is None
    assert late.cut_at is None
    await asyncio.sleep(1.0)
    assert late.cut_at is not None


@pytest.mark.looptime
async def test_a_timer_runs_only_while_somebody_waits(clock: None) -> None:
    trips, first, second = StatementDeadlines(), Wire(), Wire()
    trips.begin(first, 2.0)
    trips.end(first)
    await asyncio.sleep(1.0)
    assert trips._timer is None
    trips.begin(second, 1.0)
    await asyncio.sleep(1.5)
    assert second.cut_at is not None
    assert trips._timer is None


async def test_ending_twice_is_no_error() -> None:
    trips, wire = StatementDeadlines(), Wire()
    trips.end(wire)
    trips.begin(wire, 5.0)
    trips.end(wire)
    trips.end(wire)


async def test_an_answer_that_came_while_our_loop_stood_still_is_taken() -> None:
    trips, wire = StatementDeadlines(), Wire()
    response: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    trips.begin(wire, 0.3)

    async def answered() -> None:
        await response
        trips.end(wire)

    task = asyncio.create_task(answered(), name="round trip")
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(response.set_result, None)
    time.sleep(0.6)  # noqa: ASYNC251 - the fault: nobody runs meanwhile
    await asyncio.wait_for(task, 60)
    assert wire.cut_at is None
