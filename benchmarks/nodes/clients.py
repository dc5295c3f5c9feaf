"""Applications in closed loops, on nodes and over HTTP: when each was served, and what failed."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from time import perf_counter
from typing import Any

from benchmarks.http_load import HttpConnection, post
from benchmarks.nodes.site import CLIENT_ERRORS, Node, Site

_PAUSE_AFTER_FAILURE = 0.05


class Clients:
    """Clients that never stop asking.

    Attributes:
        served: when each tenant was served, by `perf_counter()`.
        failures: what went wrong.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self.served: defaultdict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []

    async def on_node(self, node: Node, tenant: str, hold: float) -> None:
        """One that connects through *node*, and holds a connection for *hold* seconds each time."""
        while True:
            try:
                connection = await self._site.connect(node, tenant)
                try:
                    while True:
                        await connection.execute(f"SELECT pg_sleep({hold})")
                        self.served[tenant].append(perf_counter())
                finally:
                    connection.terminate()
            except CLIENT_ERRORS as error:
                self.failures.append(repr(error))
                await asyncio.sleep(_PAUSE_AFTER_FAILURE)

    async def over_http(self, tenant: str, hold: float) -> None:
        """One that sends the same to the service."""
        request = post(
            f"/v1/tenants/{tenant}/query", json.dumps({"sql": f"SELECT pg_sleep({hold})"})
        )
        connection = await HttpConnection.connect(self._site.service.target.port)
        try:
            while True:
                status, body = await connection.ask(request)
                if status == b"200":
                    self.served[tenant].append(perf_counter())
                else:
                    self.failures.append(f"{status!r} {body[:200]!r}")
                    await asyncio.sleep(_PAUSE_AFTER_FAILURE)
        finally:
            connection.close()

    @property
    def count(self) -> int:
        """How often any was served."""
        return sum(map(len, self.served.values()))

    def longest_waits(self, began: float, ended: float) -> list[float]:
        """Seconds for which each tenant was not served at worst, sorted."""
        waits = []
        for times in self.served.values():
            ends = [began, *(each for each in times if began < each < ended), ended]
            waits.append(max(b - a for a, b in pairwise(ends)))
        return sorted(waits)


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run all of it beside a block, which must not end before the block does."""
    tasks = [asyncio.create_task(each, name=f"bench: work {n}") for n, each in enumerate(work)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
