"""Unfinished changes are finished server by server, and no server waits for another."""

import asyncio

import pytest

from app.control import server_queues
from app.control.server_queues import work_off


async def test_no_server_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = asyncio.Event()
    order: list[str] = []

    async def finish(change: str) -> bool:
        if change.startswith("hangs"):
            await ends.wait()
        order.append(change)
        if change == "last":
            ends.set()
        return change != "refused"

    hanging = {f"server {number}": [f"hangs {number}"] for number in range(6)}
    works = {"works": ["first", "refused", "last"]}
    assert await work_off({**hanging, **works}, finish) == 8
    assert order[:3] == ["first", "refused", "last"]

    # One that takes too long is left for the next time, with what it has finished.
    ends.clear()
    monkeypatch.setattr(server_queues, "_SERVER_DEADLINE", 0.01)
    assert await work_off({"slow": ["first", "hangs", "never"]}, finish) == 1
    assert await work_off({}, finish) == 0


async def test_a_failure_that_nobody_expected_keeps_no_other_change_from_its_end() -> None:
    failed, done = asyncio.Event(), list[str]()

    async def finish(change: str) -> bool:
        if change == "fails":
            failed.set()
            raise ZeroDivisionError
        await failed.wait()
        # Another turn of the loop: time enough to be cancelled.
        await asyncio.sleep(0)
        done.append(change)
        return True

    with pytest.raises(ExceptionGroup) as failures:
        await work_off({"broken": ["fails", "left"], "well": ["first", "last"]}, finish)
    assert failures.group_contains(ZeroDivisionError)
    assert sorted(done) == ["first", "last", "left"]


async def test_a_server_that_takes_too_long_hides_no_earlier_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def finish(change: str) -> bool:
        if change == "fails":
            raise ZeroDivisionError
        return await asyncio.Event().wait()

    monkeypatch.setattr(server_queues, "_SERVER_DEADLINE", 0.01)
    with pytest.raises(ExceptionGroup) as failures:
        await work_off({"slow": ["fails", "hangs"]}, finish)
    assert failures.group_contains(ZeroDivisionError)


async def test_whoever_is_cancelled_leaves_no_work_behind() -> None:
    ended = asyncio.Event()

    async def finish(_: str) -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(work_off({"hangs": ["first"]}, finish), name="works")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
