"""The active instance is killed, or stands still and wakes up: another one serves, and it alone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.runtime.server import ExitStatus
from tests.fixtures.pools import finished, pids
from tests.fixtures.postgres import Database
from tests.fixtures.processes import kill
from tests.fixtures.served import Served, served
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched

BUDGET = 4
CLIENTS = 5


@asynccontextmanager
async def two(
    tenants: Database, catalog: Database, directory: Path
) -> AsyncIterator[tuple[Served, Served]]:
    """An active instance and a standby, whose budget is watched."""
    settings: dict[str, Any] = {"tenants_in": tenants, "catalog_in": catalog, "advertises": True}
    settings["servers__local__budget"] = BUDGET
    places = [directory / name for name in ("first", "second")]
    for place in places:
        place.mkdir()
    async with (
        watched(tenants, budget=BUDGET),
        served(places[0], **settings) as first,
        served(places[1], **settings) as second,
    ):
        yield first, second


async def has_leases(service: Served) -> bool:
    """Whether it lends a connection."""
    return await service.query("a", "SELECT 42") == 200


async def test_a_standby_follows_one_that_is_killed_within_the_same_budget(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    async with two(database, catalog_database, tmp_path) as (first, second):
        await first.tenant("a")
        endless = asyncio.create_task(first.query("a", "SELECT pg_sleep(60)"))
        callers = [asyncio.create_task(first.caller("a")) for _ in range(CLIENTS)]
        forwarded = [asyncio.create_task(second.caller("a")) for _ in range(CLIENTS)]
        await eventually(lambda: min(first.answers[200], second.answers[200]) > 20)
        old = await pids(database)
        await kill(first.process)
        await finished([*callers, endless])
        async with catalog_database.connected() as catalog:
            # Nobody is left who has the dead one's trust, so it need not be waited for here.
            await catalog.execute("UPDATE leadership SET renewed_at = renewed_at - interval '6 s'")
            await eventually(lambda: has_leases(second))
            record = await catalog.fetchrow("SELECT epoch, url FROM leadership")
        assert tuple(record or ()) == (2, str(second.client.base_url).rstrip("/"))
        assert not old & await pids(database)
        for caller in forwarded:
            caller.cancel()
        await asyncio.gather(*forwarded, return_exceptions=True)
        # 502: it was sent to the one that was killed.
        assert set(second.answers) <= {200, 502, 503}


async def test_one_that_wakes_up_serves_nobody_and_writes_nothing(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    async with two(database, catalog_database, tmp_path) as (first, second):
        await first.tenant("a")
        assert await has_leases(first)
        first.process.send_signal(signal.SIGSTOP)
        late = [
            asyncio.create_task(answer(first, "GET", "/v1/tenants")),
            asyncio.create_task(answer(first, "PUT", "/v1/tenants/late")),
            asyncio.create_task(first.query("a", "SELECT 42")),
        ]
        await eventually(lambda: has_leases(second))
        first.process.send_signal(signal.SIGCONT)
        assert await first.process.wait() == ExitStatus.LEADERSHIP_LOST
        # 0: it closed the connection.
        assert set(await asyncio.gather(*late)) <= {503, 0}
        tenants = (await second.client.get("/v1/tenants")).json()["items"]
        assert [each["id"] for each in tenants] == ["a"]
        assert await has_leases(second)


async def answer(service: Served, method: str, path: str) -> int:
    """The status of a request; 0 if there was none."""
    try:
        body = {"strategy": "per_tenant"} if method == "PUT" else None
        return (await service.client.request(method, path, json=body)).status_code
    except httpx.TransportError:
        return 0
