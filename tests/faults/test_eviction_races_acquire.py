"""Pools are evicted all the time while leases come in: no lease fails, nothing is left over."""

import asyncio
import random

from app.domain.errors import PoolDraining
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools.eviction import EvictionReason
from app.pools.manager import TenantPoolManager
from tests.fixtures.pools import finished, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.watch import watched_manager_on

TENANTS = 6


async def test_evictions_to_make_room_fail_no_lease(database: Database, scrub_roles: None) -> None:
    chance = random.Random(3)  # noqa: S311 - a load, not a secret
    configs = {
        PoolStrategy.PER_TENANT: PoolConfig.per_tenant(
            max_pools=2, pool_size=2, idle_timeout=0.0, acquire_timeout=20
        )
    }
    async with watched_manager_on(database, configs=configs, budget=4) as manager:
        for number in range(TENANTS):
            await provisioned(manager, f"t{number}")

        async def work() -> None:
            await asyncio.sleep(chance.random())
            async with manager.lease(f"t{chance.randrange(TENANTS)}") as connection:
                assert await connection.fetchval("SELECT 42") == 42
            manager.evict_expired()

        tasks = [asyncio.create_task(work()) for _ in range(200)]
        assert await finished(tasks, deadline=40) == [None] * 200
        assert manager.evictions.total() > TENANTS


async def test_forced_evictions_are_told_to_callers_and_leave_nothing(
    manager: TenantPoolManager,
) -> None:
    account = await provisioned(manager, "a")
    stopping = False

    async def work() -> int:
        served = 0
        while not stopping:
            try:
                async with manager.lease("a") as connection:
                    await connection.fetchval("SELECT 1")
                served += 1
            except PoolDraining:
                await asyncio.sleep(0)
        return served

    tasks = [asyncio.create_task(work()) for _ in range(10)]
    for _ in range(20):
        await asyncio.sleep(0.02)
        for pool in list(manager.pools()):
            await manager.evict(pool, EvictionReason.FORCED, 5)
    stopping = True
    assert sum(await finished(tasks)) > 20
    assert account.leased == account.waiting == 0
    assert account.recorder.acquired == account.recorder.released
