"""Steps of a tick that do not depend on each other's success."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# If the steps of thousands of pools fail, the others are only counted: all of them in one line of
# the log would block the event loop.
_REPORTED_FAILURES = 10


class IndependentSteps:
    """Runs steps one after another; a failure that nobody expected ends its own step only."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failures: list[Exception] = []
        self._failed_steps = 0

    async def run(
        self, step: Coroutine[Any, Any, T], *, expected: type[Exception] | tuple[()] = ()
    ) -> T | None:
        """Return the result of *step*; None if it failed.

        Raises:
            Exception: it is *expected*, and later steps would meet it, too.
        """
        task = asyncio.create_task(step, name=f"{self._name}: step")
        try:
            # It ends the step when it is cancelled itself.
            [result] = await asyncio.gather(task, return_exceptions=True)
        except asyncio.CancelledError as cancelled:
            # Perhaps the tick is out of time: its failures until now must not be lost.
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, expected):
                self._note(error)
            raise cancelled from self._failure
        if not isinstance(result, BaseException):
            return result
        if isinstance(result, expected):
            raise result
        self._note(result)
        return None

    def end(self) -> None:
        """Report the failures, once no step is left.

        Raises:
            ExceptionGroup: some steps failed.
        """
        if (failure := self._failure) is not None:
            raise failure

    def _note(self, error: BaseException) -> None:
        self._failed_steps += 1
        if len(self._failures) == _REPORTED_FAILURES:
            return
        if isinstance(error, Exception):
            self._failures.append(error)
        else:
            # A cancellation that is not the tick's: as such it would end the loop of ticks.
            failure = RuntimeError("The step was cancelled from inside.")
            failure.__cause__ = error
            self._failures.append(failure)

    @property
    def _failure(self) -> Exception | None:
        if not self._failures:
            return None
        return ExceptionGroup(f"{self._name}: steps failed: {self._failed_steps}", self._failures)
