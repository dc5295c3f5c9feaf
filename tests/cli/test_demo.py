"""`poolkeeper demo`: waits and recommendations within a minute, and nothing is left."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from app.cli import demo as demo_command
from app.cli.demo import DemoError
from tests.fixtures.ports import free_port
from tests.fixtures.preloaded import PreloadedProcess, start_preloaded
from tests.fixtures.processes import family, is_alive, processes_about
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.long

# The advisor gives no advice while the service stalls: on a busy machine that is all the time.
WHATEVER_STALLS = {"config": {"loop_lag_seconds": 3600.0}}


@dataclass(frozen=True, slots=True)
class Demo:
    """The command in its own process, and the files with its output."""

    process: PreloadedProcess
    output: Path
    errors: Path

    async def ended(self) -> str:
        """Wait until it has ended; returns its standard error."""
        async with asyncio.timeout(180):
            await self.process.wait()
        return self.errors.read_text()


@asynccontextmanager
async def demo(directory: Path, written_to: Path, **settings: object) -> AsyncIterator[Demo]:
    """The command for a block; SIGTERM lets it clean up if a test did not end it."""
    given = {f"POOLKEEPER_{name.upper()}": str(value) for name, value in settings.items()}
    output, errors = written_to / "output", written_to / "errors"
    with output.open("wb") as out, errors.open("wb") as err:
        process = await start_preloaded(
            ["demo"],
            directory=directory,
            environment={**os.environ, **given},
            output=out.fileno(),
            errors=err.fileno(),
        )
    running = Demo(process, output, errors)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
            await running.ended()


def names_in(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()]


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False
    ) as client:
        yield client


async def items(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """The items of a list; none until the service responds."""
    try:
        response = await client.get(path)
    except httpx.TransportError:
        return []
    found: list[dict[str, Any]] = response.raise_for_status().json()["items"]
    return found


async def test_the_demo_shows_waits_and_recommendations_within_a_minute_and_leaves_nothing(
    enterable_path: Path, tmp_path: Path
) -> None:
    data_dir, port = enterable_path / "data", free_port()
    async with (
        demo(enterable_path, tmp_path, data_dir=data_dir, port=port) as running,
        client_of(port) as client,
    ):

        async def are_provisioned() -> bool:
            return len(await items(client, "/v1/tenants?state=provisioned&limit=500")) == 24

        async def waits() -> bool:
            stats = await items(client, "/v1/stats?limit=500")
            return any(tenant["total_wait_time_ms"] > 1000 for tenant in stats)

        async def growth() -> list[str]:
            recommendations = await items(client, "/v1/recommendations?status=open")
            grows = [each for each in recommendations if each["action"] == "scale_up"]
            # A shared pool may have one, too, without a tenant.
            return [each["id"] for each in grows if each["tenant"] is not None]

        await eventually(are_provisioned, every=0.2)
        (await client.put("/v1/advisor", json=WHATEVER_STALLS)).raise_for_status()
        await eventually(waits, every=0.2)
        await eventually(growth, every=0.2)
        [first, *_] = await growth()
        applied = (
            (await client.post(f"/v1/recommendations/{first}/apply")).raise_for_status().json()
        )
        pool = (await client.get(f"/v1/tenants/{applied['tenant']}/pool")).raise_for_status().json()
        assert applied["status"] == "applied"
        assert pool["desired"]["max_size"] == applied["new_size"] > applied["max_size"]

        members = family(running.process.pid)
        running.process.terminate()
        logged = await running.ended()
    assert running.process.returncode == 0, logged
    assert f"http://127.0.0.1:{port}/docs" in running.output.read_text()
    assert "Traceback" not in logged
    assert not [pid for pid in members if is_alive(pid)]
    assert not processes_about(str(data_dir))
    assert not names_in(enterable_path)


async def test_the_data_of_make_run_is_not_touched(enterable_path: Path, tmp_path: Path) -> None:
    """Not even by a demo that is stopped during its start."""
    data_dir = enterable_path / "data"
    (data_dir / "postgres").mkdir(parents=True)
    async with demo(enterable_path, tmp_path, data_dir=data_dir, port=free_port()) as running:
        await eventually((data_dir / "demo" / "postgres").is_dir)
        running.process.terminate()
        logged = await running.ended()
    assert running.process.returncode == 0, logged
    assert names_in(data_dir) == ["postgres"]


async def test_another_service_on_the_port_is_left_alone(
    enterable_path: Path, tmp_path: Path
) -> None:
    called: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.append(await reader.readline())
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    data_dir = enterable_path / "data"
    async with other, demo(enterable_path, tmp_path, data_dir=data_dir, port=port) as running:
        logged = await running.ended()
    assert running.process.returncode != 0
    assert "address already in use" in logged
    assert not called
    assert not names_in(enterable_path)


async def test_traffic_that_fails_ends_the_demo_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def create_tenants(_: httpx.AsyncClient) -> list[str]:
        return ["demo-bakery"]

    async def no_node(_: httpx.AsyncClient) -> None:
        return None

    async def fail(*_: object) -> None:
        raise httpx.DecodingError("no gzip")

    monkeypatch.setattr(demo_command, "_create_tenants", create_tenants)
    monkeypatch.setattr(demo_command, "_connection_string", no_node)
    monkeypatch.setattr(demo_command, "_log_statistics", fail)
    server = uvicorn.Server(uvicorn.Config(FastAPI(), host="127.0.0.1", port=0, log_config=None))
    with pytest.raises(DemoError, match="traffic failed: DecodingError"):
        await demo_command.serve_with_traffic(server)


async def test_declared_servers_are_never_used(enterable_path: Path, tmp_path: Path) -> None:
    (enterable_path / "secret").write_text("secret")
    server = f'"host": "127.0.0.1", "user": "me", "password_file": "{enterable_path}/secret"'
    declared = {"servers": f'{{"one": {{{server}}}}}', "catalog": f"{{{server}}}"}
    data_dir = enterable_path / "data"
    async with demo(enterable_path, tmp_path, data_dir=data_dir, **declared) as running:
        printed = await running.ended()
    assert running.process.returncode == 2
    assert json.loads(printed)["reason"] == "The demo only runs on the embedded server."
    assert names_in(enterable_path) == ["secret"]
