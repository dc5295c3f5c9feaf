"""`POST …/query` beside what a team would write itself, and beside `POST /sql`.

Each service is a process of its own.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx

from benchmarks.figure import Figures, Rounds
from benchmarks.http_load import (
    Target,
    bearer,
    get,
    post,
    server_process,
    throughput,
    until_status,
)
from benchmarks.service import ServiceProcess, write_keys
from benchmarks.testbed import Testbed, bench_folder, free_port

_CLIENTS = 10
# Each key and each credential is limited to 200 requests a second.
_KEYS = 2 * _CLIENTS
_SECONDS = 1.0
_WARM_UP_SECONDS = 0.3
_BODY = (
    '{"sql": "select g, g::text from generate_series(1, 10) g where g > $1::int", "params": [3]}'
)
_SQL_BODY = _BODY.replace('"sql"', '"query"').replace("[3]", '["3"]')
_NAIVE = "/tenants/bench/query"
_STRATEGIES = {"shared": "shared", "own": "per_tenant"}


async def query(_: Testbed, rounds: int) -> Figures:
    """`POST …/query` and `/livez` beside FastAPI and asyncpg.Pool: processor time ÷ theirs."""
    if not Path("/proc/self/stat").exists():  # noqa: ASYNC240 - once
        sys.stdout.write("query: processor time is only known on Linux, so it is not measured.\n")
        return {}
    found = Rounds()
    with bench_folder() as folder:
        data = folder / "data"
        service = ServiceProcess(data, log_level="ERROR")
        try:
            await service.start()
            logins = await _prepare(service)
            async with _naive(service) as naive:
                await _compare(found, naive, service.target, rounds)
                tokens = write_keys(data / "keys.json", _KEYS)
                await until_status(service.target.port, b"401", get("/v1/stats"))
                await _compare(found, naive, service.target, rounds, tokens=tokens, logins=logins)
            await service.terminate()
        finally:
            await service.kill()
    return found.figures(warm_up=1)


async def _compare(
    found: Rounds,
    naive: Target,
    ours: Target,
    rounds: int,
    *,
    tokens: Sequence[str] = (),
    logins: Sequence[str] = (),
) -> None:
    """All by turns, in rounds after one that does not count.

    Each client has keys or logins of its own, and uses them by turns.
    """
    headers = [bearer(token) for token in tokens] or [""]
    key = "query_with_key" if tokens else "query"
    contenders = {"naive": (naive, [post(_NAIVE, _BODY)])} | {
        name: (ours, [post(f"/v1/tenants/{name}/query", _BODY, header) for header in headers])
        for name in _STRATEGIES
    }
    if not tokens:
        contenders |= {"bare": (naive, [get("/bare")]), "livez": (ours, [get("/livez")])}
    if logins:
        contenders["sql"] = (ours, [post("/sql", _SQL_BODY, login) for login in logins])
    for number in range(rounds + 1):
        cpu, seconds = {}, _SECONDS if number else _WARM_UP_SECONDS
        for name, (target, requests) in contenders.items():
            got = await throughput(target, requests, clients=_CLIENTS, seconds=seconds)
            cpu[name] = 1 / got.per_cpu_second
        for name in ("naive", *_STRATEGIES):
            found.add(f"{key}_cpu_ms", cpu[name] * 1000, name)
        for name in _STRATEGIES:
            found.add(f"{key}_vs_naive", cpu[name] / cpu["naive"], name)
        if not tokens:
            found.add("livez_vs_bare", cpu["livez"] / cpu["bare"])
        if logins:
            found.add("sql_cpu_ms", cpu["sql"] * 1000)
            found.add("sql_vs_query", cpu["sql"] / cpu["own"])


async def _prepare(service: ServiceProcess) -> list[str]:
    """A shared tenant, and one with a pool of its own, as large as its callers need.

    The headers of Neon's driver, for each of the latter's credentials.
    """
    async with httpx.AsyncClient(base_url=service.base_url, timeout=60, trust_env=False) as client:
        for name, strategy in _STRATEGIES.items():
            tenant = f"/v1/tenants/{name}"
            for response in (
                await client.put(tenant, json={"strategy": strategy}),
                await client.post(f"{tenant}/provision"),
                await client.put(f"{tenant}/pool?scope=pool", json={"max_size": _CLIENTS}),
            ):
                response.raise_for_status()
        logins = []
        for number in range(_KEYS):
            created = await client.post(
                "/v1/tenants/own/credentials", json={"name": f"app-{number}"}
            )
            url = created.raise_for_status().json()["connection_string"]
            logins.append(
                f"Neon-Connection-String: {url}\r\n"
                "Neon-Raw-Text-Output: true\r\nNeon-Array-Mode: true\r\n"
            )
        return logins


def _naive(service: ServiceProcess) -> AbstractAsyncContextManager[Target]:
    """The naive service on the same Postgres; with uvicorn's defaults: uvloop and httptools."""
    port = free_port()
    return server_process(
        port,
        *("-m", "uvicorn", "benchmarks.naive:app", "--port", str(port)),
        *("--log-level", "warning", "--no-access-log"),
        ready=get("/bare"),
        env=os.environ | {f"PG{name.upper()}": text for name, text in service.postgres().items()},
    )
