"""SIGTERM arrives while callers are served: the service ends soon, in order, and completely."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fixtures.pools import backends, finished
from tests.fixtures.postgres import Database
from tests.fixtures.processes import family, processes_about
from tests.fixtures.served import Serve, Served, served
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched

# As patient orchestrators allow, such as Docker.
GRACE = 10.0
BUDGET = 4
CLIENTS = 10


@asynccontextmanager
async def under_load(service: Served) -> AsyncIterator[None]:
    """Callers of two tenants, at work when the block begins."""
    for name in "ab":
        await service.tenant(name)
    callers = await service.callers("ab", CLIENTS)
    try:
        yield
    finally:
        assert await finished(callers) == [None] * len(callers)


async def ends(service: Served) -> int:
    """The exit status after a SIGTERM, which may take `GRACE` seconds."""
    service.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(GRACE):
        return await service.process.wait()


@pytest.mark.long
async def test_the_service_ends_well_and_leaves_no_back_end(
    database: Database, serve: Serve
) -> None:
    async with (
        watched(database, budget=BUDGET),
        serve(servers__local__budget=BUDGET) as service,
    ):
        async with under_load(service):
            assert await ends(service) == 0
        # 503 with a Retry-After, or no connection: no answer was wrong.
        assert set(service.answers) <= {200, 503, 0}
        assert await backends(database) == 0


@pytest.mark.long
async def test_statements_without_end_do_not_hold_it_up(database: Database, serve: Serve) -> None:
    async with (
        watched(database, budget=BUDGET),
        serve(servers__local__budget=BUDGET, shutdown_seconds=1) as service,
    ):
        await service.tenant("a")
        endless = [
            asyncio.create_task(service.query("a", "SELECT pg_sleep(25)")) for _ in range(CLIENTS)
        ]
        async with database.connected() as admin:

            async def sleeps() -> bool:
                return bool(
                    await admin.fetchval(
                        "SELECT count(*) = $1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
                        BUDGET,
                    )
                )

            await eventually(sleeps)
        assert await ends(service) == 0
        assert set(await finished(endless)) <= {503, 500, 0}
        assert await backends(database) == 0


@pytest.mark.long
async def test_its_own_postgres_ends_with_it(enterable_path: Path) -> None:
    async with served(enterable_path) as service:
        members = family(service.process.pid)
        async with under_load(service):
            assert len(members) > 1
            assert await ends(service) == 0
        assert not processes_about(str(enterable_path / "data"))
