"""A queue of unfinished changes for each server: no server waits for another."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import structlog

_SERVER_DEADLINE = 20.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


async def work_off(queues: Mapping[str, Sequence[T]], finish: Callable[[T], Awaitable[int]]) -> int:
    """Finish the changes in *queues*, by server, one after another; return how many.

    A server that takes too long has the rest of them left for the next time. A failure that nobody
    expected ends the work on its server only, and is raised once the others are finished.
    """

    async def finish_on(server: str, queue: Sequence[T]) -> int:
        finished = 0
        try:
            async with asyncio.timeout(_SERVER_DEADLINE):
                for each in queue:
                    finished += await finish(each)
        except TimeoutError:
            _log.warning("changes left unfinished, the server takes too long", server=server)
        return finished

    tasks = [
        asyncio.create_task(finish_on(server, queue), name=f"finish changes on {server}")
        for server, queue in queues.items()
    ]
    # No task group: it would cancel the work on other servers.
    await asyncio.gather(*tasks, return_exceptions=True)
    return sum(task.result() for task in tasks)
