"""A thousand tenants through the front door, and as many pools where a hundred may be open.

`python -m benchmarks.thousand_tenants` starts the service as a process of its own and speaks
HTTP to it: a table for people, then one line of JSON. Nothing asserts a time; a refused or
misdirected request, a bad exit status or a process left behind fails the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from benchmarks.service import ServiceProcess

_CALLERS = 16
_MAX_POOLS = 100
_REQUEST_DEADLINE = 60.0
_LOAD_CALLERS = 32
_LOAD_TENANTS = 20
_LOAD_SECONDS = 3.0

Figures = dict[str, Any]
Failures = Counter[str]


async def measure(data_dir: Path, tenants: int) -> Figures:
    """Every figure, from the first start to the end of the second."""
    service = ServiceProcess(data_dir, per_tenant_max_pools=_MAX_POOLS)
    try:
        figures: Figures = {"tenants": tenants, "first_start_s": await service.start()}
        figures |= await _thousand(service, [f"bench-{n:04}" for n in range(tenants)])
        figures["second_start_s"] = await service.start()
        figures["second_start_memory_mb"] = service.target.megabytes("VmRSS")
        await service.terminate()
    finally:
        await service.kill()
    return figures


async def _thousand(service: ServiceProcess, tenants: Sequence[str]) -> Figures:
    failures: Failures = Counter()
    figures: Figures = {"memory_at_start_mb": service.target.megabytes("VmRSS")}
    async with httpx.AsyncClient(
        base_url=service.base_url, timeout=_REQUEST_DEADLINE, trust_env=False
    ) as client:
        async with service.most_connections() as connections:
            for name, step in (("put", _put), ("provision", _provision), ("query", _query)):
                figures |= await _all(name, step, client, tenants, failures)
                figures[f"memory_after_{name}_mb"] = service.target.megabytes("VmRSS")
        stats = (await client.get("/v1/stats?limit=1")).raise_for_status().json()
        figures |= {
            "failures": dict(failures),
            "open_pools": stats["pools"]["open"],
            "evictions": stats["evictions"],
            "budget": stats["servers"][0]["budget"],
            "max_connections": stats["servers"][0]["max_connections"],
            "most_connections": connections.most,
            "memory_peak_mb": service.target.megabytes("VmHWM"),
        }
        return figures | await _end_under_load(service, client, tenants[:_LOAD_TENANTS])


Step = Callable[[httpx.AsyncClient, str], Awaitable[str | None]]


async def _all(
    name: str, step: Step, client: httpx.AsyncClient, tenants: Sequence[str], failures: Failures
) -> Figures:
    """One step for every tenant, by a few callers at a time."""
    left = iter(tenants)
    slowest = 0.0

    async def caller() -> None:
        nonlocal slowest
        for tenant in left:
            began = perf_counter()
            failure = await step(client, tenant)
            slowest = max(slowest, perf_counter() - began)
            if failure is not None:
                failures[f"{name}: {failure}"] += 1

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    took = perf_counter() - began
    return {
        f"{name}_s": took,
        f"{name}_per_s": len(tenants) / took,
        f"{name}_slowest_ms": slowest * 1000,
    }


async def _put(client: httpx.AsyncClient, tenant: str) -> str | None:
    return _failure(await client.put(f"/v1/tenants/{tenant}", json={"strategy": "per_tenant"}))


async def _provision(client: httpx.AsyncClient, tenant: str) -> str | None:
    return _failure(await client.post(f"/v1/tenants/{tenant}/provision"))


async def _query(client: httpx.AsyncClient, tenant: str) -> str | None:
    body = {"sql": "select current_user"}
    response = await client.post(f"/v1/tenants/{tenant}/query", json=body)
    if (failure := _failure(response)) is not None:
        return failure
    right = response.json()["rows"] == [[f"tenant_{tenant}"]]
    return None if right else "answered as somebody else"


def _failure(response: httpx.Response) -> str | None:
    if response.is_success:
        return None
    return f"{response.status_code} {response.json().get('code')}"


async def _end_under_load(
    service: ServiceProcess, client: httpx.AsyncClient, tenants: Sequence[str]
) -> Figures:
    """SIGTERM while callers hold and wait for connections; what became of their requests."""
    became: Counter[str] = Counter()
    is_ending = asyncio.Event()

    async def caller(number: int) -> None:
        body = {"sql": "select pg_sleep(0.2)"}
        path = f"/v1/tenants/{tenants[number % len(tenants)]}/query"
        while not is_ending.is_set():
            try:
                response = await client.post(path, json=body)
            except httpx.TransportError as error:
                became[type(error).__name__] += 1
                return
            became[str(response.status_code)] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(_LOAD_CALLERS):
            group.create_task(caller(number), name=f"bench: caller {number}")
        await asyncio.sleep(_LOAD_SECONDS)
        took, status, orphans = await service.terminate()
        is_ending.set()
    return {
        "sigterm_to_exit_s": took,
        "exit_status": status,
        "orphans": orphans,
        "requests_under_load": dict(became),
    }


def main() -> int:
    """Print the figures; the exit status says whether everything went as it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1000)
    tenants: int = parser.parse_args().tenants
    with tempfile.TemporaryDirectory(prefix="poolkeeper-bench-") as folder:
        Path(folder).chmod(0o711)  # root's Postgres runs under an account that has to get in
        figures = asyncio.run(measure(Path(folder) / "data", tenants))
    for key, value in figures.items():
        shown = f"{value:.1f}" if isinstance(value, float) else value
        sys.stdout.write(f"{key:28}{shown}\n")
    sys.stdout.write(json.dumps(figures) + "\n")
    went_well = not (figures["failures"] or figures["orphans"] or figures["exit_status"])
    return 0 if went_well else 1


if __name__ == "__main__":
    sys.exit(main())
