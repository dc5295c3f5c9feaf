"""A role's CONNECTION LIMIT is lower than its pool's size: the pool works with what it gets."""

import asyncio

import pytest

from app.domain.errors import ServerFull
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.pools import provisioned
from tests.fixtures.postgres import Database


async def test_leases_queue_for_the_connections_the_role_may_have(
    manager: TenantPoolManager, database: Database
) -> None:
    state = await provisioned(manager, "a")
    async with database.connected() as admin:
        await admin.execute("ALTER ROLE tenant_a CONNECTION LIMIT 2")
        async with load_on(manager, "a", clients=10) as load:
            await load.goes_on(100)
        assert load.failures == []
        assert manager.tenant_stats(state).counters.connect_failures > 0
        await admin.execute("ALTER ROLE tenant_a CONNECTION LIMIT -1")


async def test_a_role_without_a_connection_left_is_reported(
    manager: TenantPoolManager, database: Database
) -> None:
    await provisioned(manager, "a")
    await provisioned(manager, "b")
    async with database.connected() as admin:
        await admin.execute("ALTER ROLE tenant_a CONNECTION LIMIT 0")
        with pytest.raises(ServerFull):
            async with manager.lease("a"):
                pass
        async with manager.lease("b") as connection:
            assert await connection.fetchval("SELECT 42") == 42
        waiting = asyncio.create_task(_use(manager))
        await asyncio.wait({waiting})
        assert isinstance(waiting.exception(), ServerFull)
        await admin.execute("ALTER ROLE tenant_a CONNECTION LIMIT -1")
    await _use(manager)


async def _use(manager: TenantPoolManager) -> None:
    async with manager.lease("a") as connection:
        await connection.fetchval("SELECT 1")
