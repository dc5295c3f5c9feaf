"""A thousand tenants over HTTP, and as many pools where a hundred may be open.

A refused or misdirected request, a bad exit status or a process left behind fails the run.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from time import perf_counter

import httpx

from benchmarks.figure import Figures, Rounds
from benchmarks.service import ServiceProcess
from benchmarks.testbed import Testbed, bench_folder

_TENANTS = 1000
_CALLERS = 16
_MAX_POOLS = 100
_REQUEST_DEADLINE = 60.0
_LOAD_CALLERS = 32
_LOAD_TENANTS = 20
_LOAD_SECONDS = 3.0

Step = Callable[[httpx.AsyncClient, str], Awaitable[str | None]]


async def thousand_tenants(_: Testbed, rounds: int) -> Figures:
    """Declare, provision and query 1,000 tenants over HTTP; SIGTERM under load; start again."""
    found = Rounds()
    for _number in range(rounds):
        with bench_folder() as folder:
            service = ServiceProcess(folder / "data", per_tenant_max_pools=_MAX_POOLS)
            try:
                await _measure(service, found)
            finally:
                await service.kill()
    return found.figures()


async def _measure(service: ServiceProcess, found: Rounds) -> None:
    tenants = [f"bench-{number:04}" for number in range(_TENANTS)]
    found.add("thousand_start_s", await service.start(), "first")
    found.add("thousand_memory_mb", service.target.megabytes(), "start")
    async with httpx.AsyncClient(
        base_url=service.base_url, timeout=_REQUEST_DEADLINE, trust_env=False
    ) as client:
        async with service.most_connections() as connections:
            for name, step in (("put", _put), ("provision", _provision), ("query", _query)):
                took, slowest = await _all(step, client, tenants)
                found.add("thousand_per_s", _TENANTS / took, name)
                found.add("thousand_slowest_ms", slowest * 1000, name)
                found.add("thousand_memory_mb", service.target.megabytes(), name)
        found.add("thousand_memory_mb", service.target.megabytes("VmHWM"), "most")
        stats = (await client.get("/v1/stats?limit=1")).raise_for_status().json()
        budget = stats["servers"][0]["max_connections"]
        found.add("thousand_connections_vs_max", connections.most / budget)
        found.add("thousand_sigterm_to_exit_s", await _end_under_load(service, client, tenants))
    found.add("thousand_start_s", await service.start(), "again")
    found.add("thousand_memory_mb", service.target.megabytes(), "again")
    await service.terminate()


async def _all(step: Step, client: httpx.AsyncClient, tenants: list[str]) -> tuple[float, float]:
    """One step for every tenant, by a few callers; seconds for all, and for the slowest."""
    left = iter(tenants)
    slowest = 0.0

    async def caller() -> None:
        nonlocal slowest
        for tenant in left:
            began = perf_counter()
            failure = await step(client, tenant)
            slowest = max(slowest, perf_counter() - began)
            if failure is not None:
                raise RuntimeError(f"{tenant}: {failure}")

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    return perf_counter() - began, slowest


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
    return None if right else "the response is another tenant's"


def _failure(response: httpx.Response) -> str | None:
    if response.is_success:
        return None
    return f"{response.status_code} {response.json().get('code')}"


async def _end_under_load(
    service: ServiceProcess, client: httpx.AsyncClient, tenants: list[str]
) -> float:
    """SIGTERM while callers hold and wait for connections; seconds until the service ended."""
    became: Counter[str] = Counter()
    is_ending = asyncio.Event()

    async def caller(number: int) -> None:
        body = {"sql": "select pg_sleep(0.2)"}
        path = f"/v1/tenants/{tenants[number % _LOAD_TENANTS]}/query"
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
    if status or orphans:
        raise RuntimeError(f"exit status {status}, left behind {orphans}; requests: {became}")
    return took
