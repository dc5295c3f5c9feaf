"""An instance becomes active, and ends, whatever it waits for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import asyncpg
import pytest

from app.pools.servers.server_limits import ServerLimits
from app.runtime import handover, lifecycle
from app.runtime.wiring import Service
from app.settings import Settings
from tests.fixtures.app import Api, ApiWith, endpoint, ok
from tests.fixtures.hostile import Caller, hostile_server
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


async def _say_nothing(caller: Caller) -> None:
    """Let each login wait for ever."""


async def _states(api: Api) -> dict[str, str]:
    servers = ok(await api.client.get("/v1/servers"))["items"]
    return {server["name"]: server["state"] for server in servers}


@pytest.mark.parametrize("url", [None, "http://a:8080"])
async def test_an_instance_becomes_active_although_a_server_does_not_answer(
    api_with: ApiWith, database: Database, monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    monkeypatch.setattr(lifecycle, "_FIRST_CONTACT_DEADLINE", 0.2)
    async with hostile_server(_say_nothing) as hostile:
        local = endpoint(database)
        servers = {"local": local, "silent": {**local, "port": hostile.port}}
        settings = {"servers": servers, "connect_timeout_seconds": 300, "advertise_url": url}
        async with api_with(**settings) as api:

            async def local_is_used() -> bool:
                return await _states(api) == {"local": "available", "silent": "unavailable"}

            await eventually(local_is_used)
    assert hostile.left


async def test_requests_come_once_routes_have_what_they_depend_on(
    api_with: ApiWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_serving: list[bool] = []

    @asynccontextmanager
    async def slow_node(_: Settings, service: Service) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        was_serving.append(service.election.is_serving)
        yield

    monkeypatch.setattr(lifecycle, "local_node", slow_node)
    async with api_with(advertise_url="http://a:8080", node="auto") as api:
        ok(await api.client.get("/v1/servers"))
    assert was_serving == [False]


async def test_an_instance_ends_although_its_standby_loses_the_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "_END_DEADLINE", 0.05)
    goes_on = asyncio.Event()

    async def stand_by() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await goes_on.wait()

    standby = asyncio.create_task(stand_by())
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await handover._end(standby)
    assert not standby.done()
    goes_on.set()
    await standby


async def test_nodes_are_first_told_what_the_servers_have_said(
    api_with: ApiWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PgBouncer would not take over later which settings follow their clients."""
    read, told = ServerLimits.read, []

    async def older(connection: asyncpg.Connection) -> ServerLimits:
        return replace(await read(connection), reports_search_path=False)

    @asynccontextmanager
    async def before_requests(_: Settings, service: Service) -> AsyncIterator[None]:
        configuration = service.node_feed.latest(service.fleet.nodes["edge"])
        assert configuration is not None
        told.append(configuration.servers["local"].reports_search_path)
        yield

    monkeypatch.setattr(ServerLimits, "read", older)
    async with api_with() as api:
        await api.tenant("acme")
        ok(await api.client.put("/v1/nodes/edge", json={}), 201)
    monkeypatch.setattr(lifecycle, "local_node", before_requests)
    async with api_with(node="auto"):
        assert told == [False]
