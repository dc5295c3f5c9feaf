"""Replies that are lost on the way: what a request writes is stored at most once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from httpx import Response

from tests.fixtures.app import Api, ok, serving
from tests.fixtures.pools import through
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually

INSERT = "insert into note values (1)"


@pytest.fixture
async def api(
    scrub_roles: None,
    database: Database,
    catalog_database: Database,
    fault_proxy: FaultProxy,
    tmp_path: Path,
) -> AsyncIterator[Api]:
    """The application, whose server is behind a proxy."""
    async with serving(through(database, fault_proxy), catalog_database, tmp_path) as api:
        yield api


async def inserter(api: Api, protocol: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    """Sends one statement that writes."""
    url = await api.tenant("acme")
    ok(await api.query(url, "create table note (n int)", read_only=False))
    credential = ok(await api.client.post(f"{url}/credentials", json={"name": "web"}), 201)

    async def insert() -> Response:
        if protocol == "query":
            return await api.query(url, INSERT, read_only=False)
        headers = {
            "Neon-Connection-String": credential["connection_string"],
            "Neon-Raw-Text-Output": "true",
        }
        return await api.client.post("/sql", json={"query": INSERT}, headers=headers)

    return insert


@pytest.mark.parametrize("protocol", ["query", "sql"])
async def test_a_write_is_not_repeated_that_may_be_committed(
    api: Api, database: Database, fault_proxy: FaultProxy, protocol: str
) -> None:
    insert = await inserter(api, protocol)

    async def stored() -> int:
        async with database.connected() as connection:
            return int(await connection.fetchval("select count(*) from tenant_acme.note"))

    for _ in range(2):
        ok(await insert())
    before = await stored()
    async with database.connected() as connection:

        async def has_run() -> bool:
            return bool(
                await connection.fetchval(
                    "select state like 'idle%' and state_change > $1 from pg_stat_activity"
                    " where usename = 'tenant_acme'",
                    asked_at,
                )
            )

        asked_at = await connection.fetchval("select clock_timestamp()")
        fault_proxy.black_hole(up=False)
        inserting = asyncio.create_task(insert(), name="insert")
        await eventually(has_run)
    await fault_proxy.reset()
    await fault_proxy.pass_through()
    response = await inserting
    if response.status_code == 200:
        assert await stored() == before + 1
    else:
        assert {"lease-lost", "08007"} & set(response.json().values())
        assert await stored() <= before + 1


@pytest.mark.parametrize("protocol", ["query", "sql"])
async def test_a_write_whose_commit_is_known_succeeds_whatever_is_lost_after_it(
    api: Api, fault_proxy: FaultProxy, protocol: str
) -> None:
    insert = await inserter(api, protocol)
    for expected in (1, 2):
        fault_proxy.ends_after = b"COMMIT\0"
        ok(await insert())
        fault_proxy.ends_after = b""
        assert await api.value("/v1/tenants/acme", "select count(*) from note") == expected


@pytest.mark.parametrize("protocol", ["query", "sql"])
async def test_a_write_finds_another_connection_for_one_that_went_silent_while_idle(
    api: Api, fault_proxy: FaultProxy, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = await inserter(api, protocol)
    ok(await insert())
    # As if that were long ago.
    monkeypatch.setattr("app.pools.lease._BYPASS_WINDOW", -1)
    fault_proxy.strand()
    ok(await insert())
