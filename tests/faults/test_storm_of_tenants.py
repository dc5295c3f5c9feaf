"""More tenants than pools, callers that give up, a late loop: each back-end has its pool."""

import asyncio
import random
import time

import pytest

from app.domain.errors import LeaseLost, Unavailable
from app.domain.eviction import EvictionReason
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools import pool as pools
from app.pools.driver import CONNECTION_ERRORS
from app.pools.manager import TenantPoolManager
from tests.fixtures.pools import finished, no_pool_is_pinned, pids, provisioned, sums_are_right
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import Progress, eventually
from tests.fixtures.watch import TIGHT, watched_manager_on

ROLES = 24
LEASES = 200
_FORESEEN = (asyncio.CancelledError, Unavailable, LeaseLost, *CONNECTION_ERRORS)

CONFIGS = {
    PoolStrategy.PER_TENANT: PoolConfig.per_tenant(
        max_pools=3, pool_size=2, idle_timeout=0.0, acquire_timeout=20
    )
}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing pools give up at once what has not ended, as they do in a storm after seconds."""
    monkeypatch.setattr(pools, "_SETTLE_DEADLINE", 0.002)


async def disturb(manager: TenantPoolManager, chance: random.Random, served: Progress) -> None:
    """Evict at random, and make the loop late, until cancelled."""
    while True:
        await served.made(chance.randrange(2))
        if chance.random() < 0.3:
            time.sleep(chance.random() * 0.03)  # noqa: ASYNC251 - a late loop is the point
        if open_pools := list(manager.pools()):
            pool = chance.choice(open_pools)
            await manager.evict(pool, EvictionReason.FORCED, chance.random() * 0.01)


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_back_end_belongs_to_a_pool_afterwards(
    database: Database, scrub_roles: None, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret
    async with watched_manager_on(database, configs=CONFIGS) as manager:
        for number in range(ROLES):
            await provisioned(manager, f"t{number}")

        served = Progress()

        async def work() -> None:
            await asyncio.sleep(chance.random() * 2)
            async with manager.lease(f"t{chance.randrange(ROLES)}") as connection:
                assert await connection.fetchval("SELECT 42") == 42
            served.done += 1

        disturbing = asyncio.create_task(disturb(manager, chance, served), name="disturber")
        tasks = [asyncio.create_task(work()) for _ in range(LEASES)]
        for task in chance.sample(tasks, LEASES // 3):
            asyncio.get_running_loop().call_later(chance.random() * 2.5, task.cancel)
        results = await finished(tasks)
        disturbing.cancel()
        await asyncio.wait({disturbing})
        assert disturbing.cancelled(), disturbing.exception()

        assert [one for one in results if not isinstance(one, (type(None), *_FORESEEN))] == []
        assert results.count(None) > LEASES // 10
        server = manager.servers["local"]
        await sums_are_right(server, database)
        await no_pool_is_pinned(manager)

        async def each_has_its_pool() -> bool:
            # An idle one that is closing now is in neither of both.
            shown = await pids(database)
            return shown == {
                connection.pid
                for pool in manager.pools()
                for connection in (*pool.connections.idle, *pool.connections.leased)
            }

        await eventually(each_has_its_pool)
        # Each back-end that a pool gave up was seen to end since.
        await eventually(lambda: server.budget.limit == TIGHT)
        assert all(state.leased == state.waiting == 0 for state in manager.tenants.values())
