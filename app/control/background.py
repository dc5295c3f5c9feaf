"""Background tasks: loops of ticks, tasks that outlive their caller, and their supervisor.

The supervisor ends the service if a loop dies. The only broad `except` of the project is here: a
failed tick is logged and tried again.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import structlog

T = TypeVar("T")

_JITTER = 0.05

_log = structlog.get_logger(__name__)


async def run_every(
    name: str,
    interval: Callable[[], float],
    tick: Callable[[], Coroutine[Any, Any, object]],
    *,
    timeout: float,
) -> None:
    """Run *tick* every *interval()* seconds until cancelled; missed ticks are skipped.

    A tick that fails or takes longer than *timeout* seconds is logged, and tried again at the next
    interval. Up to 5 % jitter keeps services from synchronising.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    due = loop.time()
    while True:
        try:
            async with asyncio.timeout(timeout):
                # Until Python 3.11.3, a failed task group leaves its task marked as cancelled, and
                # a deadline in it cancels instead of raising TimeoutError: each tick has its own.
                report = await asyncio.create_task(tick(), name=f"{name}: tick")
        except Exception:  # the one place: no failed tick may end its loop
            _log.exception("tick failed", loop=name)
            if task is not None and task.cancelling():
                raise  # instead of the cancellation
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            _log.error("tick cancelled from inside", loop=name)
        else:
            _log.debug("tick", loop=name, report=report)
        pause = interval() * (1 + random.uniform(0, _JITTER))  # noqa: S311 - spreads load
        due = max(due + pause, loop.time())
        await asyncio.sleep(due - loop.time())


class Supervisor:
    """Owns the service's background tasks; none can die unnoticed."""

    def __init__(self, on_death: Callable[[], None]) -> None:
        """Call *on_death* once if a loop ends by itself, or a finite task fails."""
        self._on_death = on_death
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self.dead: str | None = None

    def start(
        self, name: str, work: Coroutine[Any, Any, None], *, may_end: bool = False
    ) -> asyncio.Task[None]:
        """Run *work* until `stop`; if it *may_end*, or be cancelled, it still must not fail."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, may_end=may_end))
        return task

    def start_every(
        self,
        name: str,
        interval: Callable[[], float],
        tick: Callable[[], Coroutine[Any, Any, object]],
        *,
        timeout: float,
    ) -> None:
        """Start `run_every` as a task."""
        self.start(name, run_every(name, interval, tick, timeout=timeout))

    async def stop(self) -> None:
        """Cancel every task and wait for its end. Safe to call twice."""
        self._is_stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None], *, may_end: bool) -> None:
        self._tasks.discard(task)
        has_failed = not task.cancelled() and task.exception() is not None
        if self._is_stopping or self.dead is not None or (may_end and not has_failed):
            return
        self.dead = task.get_name()
        reason = "cancelled" if task.cancelled() else str(task.exception())
        _log.critical("background task died", loop=self.dead, reason=reason)
        self._on_death()


class BackgroundTasks:
    """Named tasks; each limits its own time and handles its own errors."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, deadline: float) -> None:
        """Wait up to *deadline* seconds for the tasks, then cancel them. Safe to call twice."""
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=deadline)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
