"""Pools are evicted all the time while leases begin: no lease fails, and nothing is left."""

import asyncio
import random

from app.domain.errors import PoolDraining
from app.domain.eviction import EvictionReason
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from tests.fixtures.pools import finished, no_pool_is_pinned, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually
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
            list(manager.evict_expired())

        # However slow this machine is: each time at least four of six make room for others.
        for _ in range(2):
            tasks = [asyncio.create_task(work()) for _ in range(100)]
            assert await finished(tasks) == [None] * 100
        assert manager.evictions.total() > TENANTS
        await no_pool_is_pinned(manager)


async def test_forced_evictions_fail_callers_and_leave_nothing(
    manager: TenantPoolManager,
) -> None:
    state = await provisioned(manager, "a")
    served = 0
    stopping = False

    async def work() -> None:
        nonlocal served
        while not stopping:
            try:
                async with manager.lease("a") as connection:
                    await connection.fetchval("SELECT 1")
                served += 1
            except PoolDraining:
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(work()) for _ in range(10)]
    for goal in range(2, 42, 2):
        await eventually(lambda: served >= goal)  # noqa: B023 - it is asked here and now
        for pool in list(manager.pools()):
            await manager.evict(pool, EvictionReason.FORCED, 5)
    stopping = True
    assert await finished(tasks) == [None] * 10
    assert state.leased == state.waiting == 0
    assert state.recorder.connections_acquired == state.recorder.connections_released
