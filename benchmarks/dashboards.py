"""Dashboards at the door: how fast they are answered, scraped and streamed to.

`python -m benchmarks.dashboards` starts the service, and a bare FastAPI route that returns the
same bytes, each as a process of its own, and asks both by turns: JSON with ratios and the rest.
Nothing asserts a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.figure import Rounds, as_json
from benchmarks.http_load import HttpConnection, Target, Throughput, bearer, get, throughput
from benchmarks.testbed import free_port

_ROUNDS = 7
_ROUND_SECONDS = 1.5
_DASHBOARDS = 32
_MANY_DASHBOARDS = 200
_PATH = "/v1/pools?sort=-waiting"
_START_DEADLINE = 240.0
_SCRAPES = 40
_READERS = 1000
_LOOK_AT_MEMORY = (5, 10.0)

Figures = dict[str, Any]


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

    async def throughput(self, paths: Sequence[str], dashboards: int) -> Throughput:
        """Responses to so many dashboards, each of which asks for one of *paths*."""
        requests = [self.request(path) for path in paths]
        return await throughput(self.target, requests, clients=dashboards, seconds=_ROUND_SECONDS)


async def compare(
    bare: Served, ours: Served, paths: Sequence[str] = (_PATH,), dashboards: int = _DASHBOARDS
) -> Figures:
    """Both by turns, so that what else the machine does befalls both alike."""
    found = Rounds()
    for number in range(_ROUNDS + 1):
        theirs = await bare.throughput(paths[:1], dashboards)
        mine = await ours.throughput(paths, dashboards)
        if number:
            found.add("ratio", mine.per_second / theirs.per_second)
            found.add("ratio_of_cpu", mine.per_cpu_second / theirs.per_cpu_second)
            found.add("bare_per_s", theirs.per_second)
            found.add("ours_per_s", mine.per_second)
    return as_json(found.figures())


async def scrape(ours: Served, pools: int) -> Figures:
    """Scrapes and dashboards over several polls, and the longest turn of the loop meanwhile."""
    await ours.get("/bench/turns?on=1")
    took: list[float] = []
    connection = await HttpConnection.connect(ours.target.port)
    size = 0
    for number in range(_SCRAPES):
        began = perf_counter()
        status, body = await connection.ask(ours.request("/metrics"))
        took.append((perf_counter() - began) * 1000)
        if status != b"200":
            raise RuntimeError(f"answered {status!r}")
        size = len(body)
        if number % 2:
            await connection.ask(ours.request(f"/v1/stats?limit={number}"))
            await connection.ask(ours.request(f"/v1/pools?sort=-size&limit={number}"))
        await asyncio.sleep(0.4)
    connection.close()
    turns = json.loads(await ours.get("/bench/turns?on=0"))
    return {
        "tenants": pools,
        "scrape_ms_median": round(statistics.median(took), 2),
        "scrape_ms_p95": round(sorted(took)[int(len(took) * 0.95)], 2),
        "scrape_bytes": size,
        **turns,
    }


async def slow_readers(ours: Served) -> Figures:
    """Streams that are opened and never read: memory, and how long polls take meanwhile."""
    before = await _poll_ms(ours), ours.target.megabytes()
    sockets: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        for _ in range(_READERS):
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.setblocking(False)  # noqa: FBT003 - socket's signature
            sockets.append(reader)
            await loop.sock_connect(reader, ("127.0.0.1", ours.target.port))
            await loop.sock_sendall(reader, ours.request("/v1/stats/stream"))
        await asyncio.sleep(3)
        connected = ours.target.megabytes()
        during = [await _poll_ms(ours) for _ in range(3)]
        memory = []
        times, seconds = _LOOK_AT_MEMORY
        for _ in range(times):
            await asyncio.sleep(seconds)
            memory.append(ours.target.megabytes())
        during += [await _poll_ms(ours)]
        return {
            "readers": _READERS,
            "poll_ms_before": before[0],
            "poll_ms_with_readers": round(statistics.median(during), 2),
            "memory_mb_before": before[1],
            "memory_mb_connected": connected,
            "memory_mb_each_10_s": memory,
            "beats_meanwhile": round(times * seconds / 0.1),
        }
    finally:
        for reader in sockets:
            reader.close()


async def _poll_ms(ours: Served) -> float:
    """How long the last five polls took, as their median."""
    seen = []
    for _ in range(5):
        text = (await ours.get("/metrics")).decode()
        found = re.search(r"^poolkeeper_poll_duration_seconds (\S+)$", text, re.MULTILINE)
        seen.append(float(found[1]) * 1000 if found else 0.0)
        await asyncio.sleep(0.25)
    return round(statistics.median(seen), 2)


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[Served]:
    """`python -m benchmarks.dashboards_service …` on a free port, ready, for a block."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.dashboards_service", str(port), *arguments),
        stdout=asyncio.subprocess.PIPE,
        env={name: text for name, text in os.environ.items() if not name.startswith("POOLKEEPER_")},
    )
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        async with asyncio.timeout(_START_DEADLINE):
            line = (await process.stdout.readline()).decode().strip()
        if not line.startswith("ready"):
            raise RuntimeError(f"it did not start: {line}")
        token = line.removeprefix("ready").strip()
        yield Served(
            target=Target(pid=process.pid, port=port), headers=bearer(token) if token else ""
        )
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def measure_throughput(folder: Path) -> Figures:
    """How many answers a second, beside the bare route's."""
    figures: Figures = {}
    pages = [f"/v1/pools?sort=-waiting&limit={limit}" for limit in range(40, 60)]
    sample = folder / "sample.json"
    async with started(str(folder / "open"), "1000") as ours:
        sample.write_bytes(await ours.get(_PATH))
        figures["bytes"] = sample.stat().st_size
        async with started("--bare", str(sample)) as bare:
            figures["without_keys"] = await compare(bare, ours)
            figures["many_dashboards_and_queries"] = await compare(
                bare, ours, pages, _MANY_DASHBOARDS
            )
    async with (
        started(str(folder / "keyed"), "1000", "--keys") as keyed,
        started("--bare", str(sample)) as bare,
    ):
        figures["with_keys_and_access_log"] = await compare(bare, keyed)
    return figures


async def measure_scrapes(folder: Path, pools: int) -> Figures:
    """What Prometheus costs with so many tenants."""
    async with started(str(folder / "large"), str(pools)) as ours:
        return await scrape(ours, pools)


async def measure_streams(folder: Path) -> Figures:
    """What followers cost who do not read."""
    async with started(str(folder / "stream"), "100", "--poll", "0.1") as ours:
        return await slow_readers(ours)


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", type=int, default=10_000)
    parser.add_argument("--only", choices=("throughput", "scrapes", "streams"))
    given = parser.parse_args()
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="poolkeeper-bench-") as folder:
        Path(folder).chmod(0o711)  # root's Postgres runs under an account that has to get in
        here = Path(folder)
        if given.only in (None, "throughput"):
            figures["throughput"] = asyncio.run(measure_throughput(here))
        if given.only in (None, "scrapes"):
            figures["scrapes"] = asyncio.run(measure_scrapes(here, given.pools))
        if given.only in (None, "streams"):
            figures["streams"] = asyncio.run(measure_streams(here))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
