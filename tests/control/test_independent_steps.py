"""Steps of a tick that do not depend on each other's success."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from app.control.independent_steps import IndependentSteps
from app.domain.errors import CatalogUnavailable


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


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_step_that_fails_in_the_moment_of_the_deadline_hides_no_failure(
    is_over: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def fail_late() -> None:
        step = asyncio.current_task()
        assert step is not None
        if is_over:  # the tick has not had its turn yet
            step.add_done_callback(lambda _: tick.cancel())
        else:
            tick.cancel()
        raise AssertionError("broken")

    tick = asyncio.create_task(run(fail_late()), name="tick")
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await tick
    failure = cancelled.value.__cause__
    assert isinstance(failure, ExceptionGroup)
    assert [str(each) for each in failure.exceptions] == ["broken"]


async def test_a_step_that_fails_as_expected_in_the_moment_of_the_deadline_is_no_failure() -> None:
    async def fail_late() -> None:
        tick.cancel()
        raise CatalogUnavailable

    async def run_step() -> None:
        await IndependentSteps("tick").run(fail_late(), expected=CatalogUnavailable)

    tick = asyncio.create_task(run_step(), name="tick")
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await tick
    assert cancelled.value.__cause__ is None


async def test_of_thousands_of_failures_the_first_are_reported_and_the_others_counted() -> None:
    async def fail_as(number: int) -> None:
        raise AssertionError(number)

    with pytest.raises(ExceptionGroup, match="steps failed: 3000") as failed:
        await run(*(fail_as(number) for number in range(3000)))
    assert [str(each) for each in failed.value.exceptions] == [str(each) for each in range(10)]


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
