"""Others took every connection of the server: callers are told quickly, and served afterwards."""

# ruff: noqa: PT012 - connecting again and again is what is to raise

from contextlib import AsyncExitStack

import asyncpg
import pytest

from app.domain.errors import ServerFull
from app.embedded import EmbeddedPostgres
from tests.fixtures.pools import provisioned
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.watch import watched_manager_on


async def test_a_full_server_is_reported_and_recovers(private_postgres: EmbeddedPostgres) -> None:
    database = await superuser_of(private_postgres)
    async with watched_manager_on(database) as manager:
        state = await provisioned(manager, "a")
        async with AsyncExitStack() as others:
            with pytest.raises(asyncpg.TooManyConnectionsError):
                while True:
                    await others.enter_async_context(database.connected())
            for _ in range(2):
                with pytest.raises(ServerFull, match="accepts no further connection"):
                    async with manager.lease("a"):
                        pass
        assert manager.servers["local"].is_available
        async with manager.lease("a") as connection:
            assert await connection.fetchval("SELECT 42") == 42
        assert manager.tenant_stats(state).counters.connect_failures >= 2
