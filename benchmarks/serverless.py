"""`POST /sql` with Neon's driver beside a connection for each statement with node-postgres."""

import asyncio
import json
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from benchmarks.figure import Figures, Rounds
from benchmarks.service import ServiceProcess
from benchmarks.testbed import Testbed, bench_folder

_PROGRAM = Path(__file__).with_suffix(".cjs")
_MODULES = Path(__file__).parents[1] / "tests" / "drivers" / "node_modules"


async def serverless(_: Testbed, rounds: int) -> Figures:
    """`POST /sql` with Neon's driver: time of a statement ÷ over a connection of its own."""
    if shutil.which("node") is None or not (_MODULES / "pg").is_dir():
        sys.stdout.write(
            "serverless: not measured without the drivers: npm ci --prefix tests/drivers\n"
        )
        return {}
    found = Rounds()
    with bench_folder() as folder:
        service = ServiceProcess(folder / "data", sql_rate_limit=0)
        try:
            await service.start()
            environment = {
                **os.environ,
                "NODE_PATH": str(_MODULES),
                "POOLKEEPER_SQL": f"{service.base_url}/sql",
                "DATABASE_URL": await _credential(service),
                "POSTGRES_URL": await _role(service),
                # The first does not count.
                "ROUNDS": str(rounds + 1),
            }
            process = await asyncio.create_subprocess_exec(
                "node", str(_PROGRAM), env=environment, stdout=asyncio.subprocess.PIPE
            )
            printed, _unused = await process.communicate()
            if process.returncode:
                raise RuntimeError(f"{_PROGRAM.name} failed: {process.returncode}")
            await service.terminate()
        finally:
            await service.kill()
    for line in printed.splitlines():
        times = json.loads(line)
        for way, by_callers in times.items():
            for callers, milliseconds in by_callers.items():
                found.add(f"serverless_{way}_ms", milliseconds, callers)
        for callers, milliseconds in times["http"].items():
            found.add("serverless_vs_tcp", milliseconds / times["tcp"][callers], callers)
    return found.figures(warm_up=1)


async def _credential(service: ServiceProcess) -> str:
    """The connection string of an application credential of a tenant with a pool of its own."""
    async with httpx.AsyncClient(base_url=service.base_url, timeout=60, trust_env=False) as client:
        tenant = "/v1/tenants/bench"
        await client.put(tenant, json={"strategy": "per_tenant"})
        await client.post(f"{tenant}/provision")
        await client.put(f"{tenant}/pool?scope=pool", json={"max_size": 10})
        created = await client.post(f"{tenant}/credentials", json={"name": "web"})
        return str(created.raise_for_status().json()["connection_string"])


async def _role(service: ServiceProcess) -> str:
    """The connection string of a role with a password as Postgres itself stores it."""
    password = secrets.token_hex(16)
    address: dict[str, Any] = {**service.postgres(), "passfile": os.devnull, "ssl": False}
    connection = await asyncpg.connect(**address, timeout=10, command_timeout=10)
    try:
        await connection.execute(f"create role direct login password '{password}'")
        await connection.execute("grant connect on database postgres to direct")
    finally:
        await connection.close()
    return f"postgresql://direct:{password}@{address['host']}:{address['port']}/postgres"
