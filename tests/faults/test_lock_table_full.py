"""Postgres' lock table is full, so nobody can log in: open connections work."""

import asyncpg
import pytest

from app.domain.errors import ServerFull
from app.embedded import EmbeddedPostgres
from tests.fixtures.load import load_on
from tests.fixtures.pools import pids, provisioned, use
from tests.fixtures.private_postgres import restarted, superuser_of
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


async def fill_lock_table(connection: asyncpg.Connection) -> None:
    """Take locks until there is room for no other."""
    taken, step = 0, 1000
    while step:
        try:
            await connection.execute(
                "SELECT pg_advisory_lock(i) FROM generate_series($1::int, $2::int) i",
                taken,
                taken + step,
            )
        except asyncpg.OutOfMemoryError:
            step //= 10
        else:
            taken += step


async def test_open_connections_serve_and_opening_one_fails_with_the_reason(
    private_postgres: EmbeddedPostgres,
) -> None:
    database = await superuser_of(private_postgres)
    async with database.connected() as connection:
        await connection.execute("ALTER SYSTEM SET max_locks_per_transaction = 10")
    await restarted(private_postgres)
    async with watched_manager_on(database) as manager:
        server = manager.servers["local"]
        for name in ("working", "new"):
            await provisioned(manager, name)
        await use(manager, "working")
        async with load_on(manager, "working", clients=1) as load:
            before = await pids(database)
            async with database.connected() as hoarder:
                await fill_lock_table(hoarder)
                with pytest.raises(ServerFull, match="lock table"):
                    await use(manager, "new")
                await server.refresh()
                assert server.is_available
                assert "lock table" in (server.last_error or "")
                await load.goes_on(100)
            await eventually(lambda: pids(database))
            assert await pids(database) == before
            await use(manager, "new")
            await server.refresh()
        assert load.failures == []
        assert (server.generation, server.last_error) == (0, None)
