"""A queue of unfinished changes for each server: no server waits for another."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import structlog

from app.control.independent_steps import IndependentSteps

_SERVER_DEADLINE = 20.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


async def work_off(
    queues: Mapping[str, Sequence[T]], finish: Callable[[T], Coroutine[Any, Any, int]]
) -> int:
    """Finish the changes in *queues*, by server, one after another; return how many.

    A server that takes too long has the rest of them left for the next time. Failures that nobody
    expected are raised once the others are finished.
    """
    steps = IndependentSteps("unfinished changes")

    async def finish_on(server: str, queue: Sequence[T]) -> int:
        finished = 0
        try:
            async with asyncio.timeout(_SERVER_DEADLINE):
                for each in queue:
                    finished += await steps.run(finish(each)) or 0
        except TimeoutError:
            _log.warning("changes left unfinished, the server takes too long", server=server)
        return finished

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(finish_on(server, queue), name=f"finish changes on {server}")
            for server, queue in queues.items()
        ]
    steps.end()
    return sum(task.result() for task in tasks)
