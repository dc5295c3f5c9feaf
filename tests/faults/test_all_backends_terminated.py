"""Somebody terminates all back-ends of the pools, again and again."""

from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.pools import provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name LIKE 'poolkeeper/%'"
)


async def test_pools_under_load_recover(manager: TenantPoolManager, database: Database) -> None:
    for name, strategy in zip("abc", PoolStrategy, strict=True):
        await provisioned(manager, name, strategy)
    async with database.connected() as admin, load_on(manager, "a", "b", "c") as load:
        for _ in range(3):
            await load.goes_on()
            assert await admin.fetchval(TERMINATE)
        await load.goes_on_without_failure()
    assert manager.servers["local"].is_available


async def test_idle_pools_notice_and_serve_without_an_error(
    manager: TenantPoolManager, database: Database
) -> None:
    state = await provisioned(manager, "a")
    async with manager.lease("a"):
        pass
    async with database.connected() as admin:
        await admin.execute(TERMINATE)
    async with manager.lease("a") as connection:
        assert await connection.fetchval("SELECT 42") == 42
    await eventually(lambda: manager.servers["local"].budget.used == 1)
    assert manager.tenant_stats(state).counters.connections_opened == 2
