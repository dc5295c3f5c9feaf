"""Dashboards: how fast they are served, scraped and streamed to.

The service, and a bare FastAPI route that returns the same bytes, are processes of their own.
"""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.figure import Figures, Rounds
from benchmarks.http_load import (
    HttpConnection,
    Target,
    bearer,
    get,
    server_process,
    throughput,
)
from benchmarks.service import write_keys
from benchmarks.testbed import Testbed, bench_folder, free_port

_ROUND_SECONDS = 1.5
_DASHBOARDS = 32
_MANY_DASHBOARDS = 200
_PATH = "/v1/pools?sort=-waiting"
_PATHS = tuple(f"{_PATH}&limit={limit}" for limit in range(40, 60))
_POOLS = 10_000
_SCRAPE_PAUSE = 0.4
_READERS = 1000
_POLL_SECONDS = 0.1
_POLLS = 5
_FAST_POLLS = ("--pools", "100", "--poll", str(_POLL_SECONDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that responds, and the headers that its callers send."""

    target: Target
    headers: str = ""

    async def get(self, path: str) -> bytes:
        """The body of one response."""
        return await self.target.get(path, self.headers)

    def request(self, path: str) -> bytes:
        """A GET request."""
        return get(path, self.headers)


async def dashboards(_: Testbed, rounds: int) -> Figures:
    """`/v1/pools` with 1,000 open pools: responses a second of processor time ÷ a bare route's."""
    found = Rounds()
    few, many = [_PATH] * _DASHBOARDS, [*_PATHS] * (_MANY_DASHBOARDS // len(_PATHS))
    with bench_folder() as folder:
        sample = folder / "sample.json"
        async with _service(folder / "open") as ours:
            sample.write_bytes(await ours.get(_PATH))
            async with _bare(sample) as bare:
                for column, paths in (("same", few), ("different", many)):
                    for _number in range(rounds + 1):
                        await _compare(found, column, bare, ours, paths)
        keys = folder / "keys"
        [token] = write_keys(keys, 1)
        async with (
            _service(folder / "keyed", "--keys", str(keys), headers=bearer(token)) as ours,
            _bare(sample) as bare,
        ):
            for _number in range(rounds + 1):
                await _compare(found, "keyed", bare, ours, few)
    return found.figures(warm_up=1)


async def _compare(
    found: Rounds, column: str, bare: Served, ours: Served, paths: Sequence[str]
) -> None:
    """A dashboard for each of *paths*, which the bare server does not look at."""
    theirs, mine = [
        await throughput(
            served.target,
            [served.request(path) for path in paths],
            clients=len(paths),
            seconds=_ROUND_SECONDS,
        )
        for served in (bare, ours)
    ]
    found.add("dashboards_vs_bare", mine.per_cpu_second / theirs.per_cpu_second, column)
    found.add("dashboards_per_s", mine.per_second, column)


async def scrapes(_: Testbed, rounds: int) -> Figures:
    """Scrapes by Prometheus and dashboards with 10,000 open pools, over several polls."""
    found = Rounds()
    with bench_folder() as folder:
        async with _service(folder / "large", "--pools", str(_POOLS)) as ours:
            await ours.get("/bench/turns?on=1")
            connection = await HttpConnection.connect(ours.target.port)
            for number in range(rounds):
                began = perf_counter()
                status, _body = await connection.ask(ours.request("/metrics"))
                if status != b"200":
                    raise RuntimeError(f"{status!r}")
                found.add("scrape_10k_ms", (perf_counter() - began) * 1000)
                if number % 2:
                    await connection.ask(ours.request(f"/v1/stats?limit={number}"))
                    await connection.ask(ours.request(f"/v1/pools?sort=-size&limit={number}"))
                await asyncio.sleep(_SCRAPE_PAUSE)
            connection.close()
            for name, value in json.loads(await ours.get("/bench/turns?on=0")).items():
                found.add(f"scrape_10k_{name}", value)
    return found.figures()


async def slow_readers(_: Testbed, rounds: int) -> Figures:
    """1,000 streams that are opened and never read: memory, and how long polls take meanwhile."""
    found, loop = Rounds(), asyncio.get_running_loop()
    readers: list[socket.socket] = []
    with bench_folder() as folder:
        async with _service(folder / "stream", *_FAST_POLLS) as ours:
            await _look(found, ours, "before")
            try:
                for _number in range(_READERS):
                    reader = socket.socket()
                    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    reader.setblocking(False)  # noqa: FBT003 - socket's signature
                    readers.append(reader)
                    await loop.sock_connect(reader, ("127.0.0.1", ours.target.port))
                    await loop.sock_sendall(reader, ours.request("/v1/stats/stream"))
                for _number in range(rounds):
                    await asyncio.sleep(3)
                    await _look(found, ours, "with readers")
            finally:
                for reader in readers:
                    reader.close()
    return found.figures()


async def _look(found: Rounds, ours: Served, column: str) -> None:
    """The service's memory, and how long its last polls took."""
    found.add("slow_readers_memory_mb", ours.target.megabytes(), column)
    for _ in range(_POLLS):
        text = (await ours.get("/metrics")).decode()
        seen = re.search(r"^poolkeeper_poll_duration_seconds (\S+)$", text, re.MULTILINE)
        if seen is None:
            raise RuntimeError("no poll")
        found.add("slow_readers_poll_ms", float(seen[1]) * 1000, column)
        await asyncio.sleep(2 * _POLL_SECONDS)


@asynccontextmanager
async def _service(folder: Path, *options: str, headers: str = "") -> AsyncIterator[Served]:
    """The service with idle pools; the data directory is *folder*."""
    port = free_port()
    words = ("-m", "benchmarks.dashboards_service", str(port), str(folder), *options)
    ready = get("/bench/turns?on=0", headers)
    env = {name: text for name, text in os.environ.items() if not name.startswith("POOLKEEPER_")}
    async with server_process(port, *words, ready=ready, env=env) as target:
        yield Served(target=target, headers=headers)


@asynccontextmanager
async def _bare(sample: Path) -> AsyncIterator[Served]:
    """A bare route that returns the content of *sample*."""
    port = free_port()
    words = ("-m", "benchmarks.dashboards_service", str(port), str(sample), "--bare")
    async with server_process(port, *words, ready=get(_PATH)) as target:
        yield Served(target=target)
