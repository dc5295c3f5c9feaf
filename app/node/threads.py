"""Threads for an agent's own work: making, writing and reading files of thousands of entries.

The event loop's threads look up names of hosts, and all of them may hang while a name server is
silent. A pooler that has ended must be started meanwhile.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *function* in a thread of its own, while the event loop goes on."""
    threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="node")
    try:
        work = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    finally:
        threads.shutdown(wait=False)
