"""Leases, cancellations, resizes, evictions and a moving budget at random: the sums are right."""

import asyncio
import random

from app.domain.errors import LeaseLost, PoolDraining, Unavailable
from app.domain.eviction import EvictionReason
from app.domain.pool import PoolConfig, PoolSize
from app.domain.tenant import PoolStrategy
from app.pools.driver import CONNECTION_ERRORS
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from tests.fixtures.pools import backends, finished, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import Progress, eventually
from tests.fixtures.watch import TIGHT, watched_manager_on

LEASES = 600
CALLERS = 40
# A caller that an eviction refused tries again after that many seconds.
_BACKOFF = 0.005
_FORESEEN = (asyncio.CancelledError, Unavailable, LeaseLost, *CONNECTION_ERRORS)

CONFIGS = {
    PoolStrategy.SHARED: PoolConfig.shared(max_connections=3, acquire_timeout=20),
    PoolStrategy.PER_TENANT: PoolConfig.per_tenant(
        max_pools=3, pool_size=3, idle_timeout=0.0, acquire_timeout=20
    ),
}


class Disturber:
    """Changes whatever can change about a manager's pools, at random."""

    def __init__(self, manager: TenantPoolManager, chance: random.Random) -> None:
        self.manager = manager
        self.chance = chance
        self.resized = self.evicted = 0
        self.served = Progress()

    async def run(self) -> None:
        """Make one disturbance after another until cancelled; then restore the budget."""
        server = self.manager.servers["local"]
        try:
            while True:
                await self.served.made(self.chance.randrange(8))
                server.budget.set_limit(self.chance.randint(1, TIGHT))
                server.policy_executor.run()
                if pools := list(self.manager.pools()):
                    await self.disturb(pools)
        finally:
            server.budget.set_limit(TIGHT)
            server.policy_executor.run()

    async def disturb(self, pools: list[Pool]) -> None:
        pool = self.chance.choice(pools)
        match self.chance.randrange(8):
            case 0:
                self.evicted += 1
                await self.manager.evict(pool, EvictionReason.FORCED, self.chance.random() * 0.02)
            case 1:
                pool.recycle()
            case 2:
                pool.pause()
                await asyncio.sleep(self.chance.random() * 0.01)
                pool.resume()
            case 3:
                list(self.manager.evict_expired())
            case _:
                self.resized += 1
                least = self.chance.randint(0, 1)
                most = self.chance.randint(1, 5)
                self.manager.resize(pool, PoolSize(min_size=least, max_size=most, warmup_size=0))


async def test_nothing_is_lost_and_the_budget_holds(database: Database, scrub_roles: None) -> None:
    chance = random.Random(23)  # noqa: S311 - a load, not a secret
    async with watched_manager_on(database, configs=CONFIGS) as manager:
        accounts = [
            await provisioned(manager, f"{strategy}-{number}".replace("_", "-"), strategy)
            for strategy in CONFIGS
            for number in range(4)
        ]
        disturber = Disturber(manager, chance)

        callers = asyncio.Semaphore(CALLERS)
        loop = asyncio.get_running_loop()

        async def work(number: int) -> None:
            tenant = str(chance.choice(accounts).tenant.spec.id)
            async with callers:
                if number % 4 == 0:
                    loop.call_later(chance.random() * 0.1, tasks[number].cancel)
                while True:
                    try:
                        async with manager.lease(tenant) as lent:
                            assert await lent.fetchval("SELECT $1::int", number) == number
                    except PoolDraining:
                        await asyncio.sleep(_BACKOFF)
                    else:
                        disturber.served.done += 1
                        return

        disturbing = asyncio.create_task(disturber.run(), name="disturber")
        tasks = [asyncio.create_task(work(number)) for number in range(LEASES)]
        results = await finished(tasks)
        disturbing.cancel()
        await asyncio.wait({disturbing})
        assert disturbing.cancelled(), disturbing.exception()

        assert [one for one in results if not isinstance(one, (type(None), *_FORESEEN))] == []
        assert results.count(None) > LEASES // 2
        assert disturber.resized > 10
        assert disturber.evicted > 1
        for state in accounts:
            assert state.leased == state.waiting == 0
            assert state.recorder.connections_acquired == state.recorder.connections_released
        await rests(manager, database)


async def rests(manager: TenantPoolManager, database: Database) -> None:
    """Whether counters, pools and Postgres agree, and nobody wants anything."""
    budget = manager.servers["local"].budget
    await eventually(
        lambda: budget.used == sum(pool.metrics.total_connections for pool in manager.pools())
    )
    assert not budget.is_contended
    assert all(pool.metrics.total_connections <= pool.size.max_size for pool in manager.pools())

    async def agrees() -> bool:
        return await backends(database) == budget.used

    await eventually(agrees, because="Postgres sees what the budget counts")
