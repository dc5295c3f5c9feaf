"""Steps of a tick that do not depend on each other's success."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from app.control.independent_steps import IndependentSteps


async def fail() -> None:
    raise AssertionError("broken")


async def hang() -> None:
    await asyncio.Event().wait()


async def run(*each: Coroutine[Any, Any, None]) -> None:
    steps = IndependentSteps("tick")
    for step in each:
        await steps.run(step)
    steps.end()


def cause(late: TimeoutError) -> BaseException | None:
    """The cancellation by a deadline; before Python 3.11.3 it is only the context."""
    return late.__cause__ or late.__context__


async def test_a_tick_out_of_time_tells_which_of_its_steps_failed_before() -> None:
    with pytest.raises(TimeoutError) as late:
        async with asyncio.timeout(0.05):
            await asyncio.create_task(run(fail(), hang()))
    cancelled = cause(late.value)
    assert cancelled is not None
    failure = cancelled.__cause__
    assert isinstance(failure, ExceptionGroup)
    assert [str(each) for each in failure.exceptions] == ["broken"]


async def test_a_tick_out_of_time_without_a_failure_has_no_other_cause() -> None:
    with pytest.raises(TimeoutError) as late:
        async with asyncio.timeout(0.05):
            await asyncio.create_task(run(hang()))
    cancelled = cause(late.value)
    assert cancelled is not None
    assert cancelled.__cause__ is None


async def test_a_step_that_is_cancelled_from_inside_is_a_failure_of_that_step() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    done: list[str] = []

    async def work() -> None:
        done.append("later")

    with pytest.raises(ExceptionGroup) as failed:
        await run(cancelled(), work())
    assert failed.group_contains(RuntimeError, match="cancelled from inside")
    assert done == ["later"]
