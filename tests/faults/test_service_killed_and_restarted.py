"""kill -9 of the service under load, and a new one on the same catalog: everything recovers."""

import asyncio

import asyncpg
import pytest

from tests.fixtures.pools import finished, pids
from tests.fixtures.postgres import Database
from tests.fixtures.processes import kill
from tests.fixtures.served import Serve, Served
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched

BUDGET = 4
CLIENTS = 5


async def load_until_killed(service: Served) -> None:
    """Run callers of two tenants, and kill the process while they work."""
    callers = await service.callers("ab", CLIENTS)
    await kill(service.process)
    await finished(callers)


@pytest.mark.long
async def test_the_next_service_knows_its_tenants_and_serves_them(
    database: Database, serve: Serve
) -> None:
    # Between death and discovery both services' back-ends can exist.
    async with watched(database, budget=2 * BUDGET) as watch:
        async with serve(servers__local__budget=BUDGET) as first:
            for name in "ab":
                await first.tenant(name)
            await load_until_killed(first)
            old = await pids(database)
        async with serve(servers__local__budget=BUDGET, acquire_timeout_seconds=60) as second:
            async with database.connected() as admin:
                await eventually(lambda: _gone(admin, old))
            watch.most = 0
            known = (await second.client.get("/v1/tenants")).json()["items"]
            assert {tenant["id"] for tenant in known} == {"a", "b"}
            restarts = await second.client.get("/v1/events?action=leadership.acquired")
            [restart] = restarts.json()["items"]
            assert restart["reason"].endswith(" failed.")
            for name in "ab":
                assert await second.query(name, "SELECT 42") == 200
            await load_until_killed(second)
            assert set(second.answers) <= {200, 0}
            assert watch.most <= BUDGET


@pytest.mark.long
async def test_a_statement_left_behind_ends_and_does_not_hold_up_the_next_service(
    database: Database, serve: Serve
) -> None:
    async with serve() as first:
        await first.tenant("a")
        endless = asyncio.create_task(first.query("a", "SELECT pg_sleep(25)"))
        async with database.connected() as admin:
            await eventually(lambda: _asleep(admin))
            old = await pids(database)
            assert old
            await kill(first.process)
            assert await endless == 0
            async with serve() as second:
                assert await second.query("a", "SELECT 42") == 200
                await eventually(lambda: _gone(admin, old))


async def _gone(admin: asyncpg.Connection, old: set[int]) -> bool:
    return not await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1::int[])", list(old)
    )


async def _asleep(admin: asyncpg.Connection) -> bool:
    return bool(
        await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    )
