"""Two thousand leases, many of them cancelled at some await: no leak, no wrong row."""

import asyncio
import os
import random

from app.domain.errors import Unavailable
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from tests.fixtures.pools import finished, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on

LEASES = int(os.environ.get("SOAK_LEASES", "2000"))
BUDGET = 8
BATCH = 200


async def test_leases_cancelled_at_random_leak_nothing_and_mix_up_nothing(
    database: Database, scrub_roles: None
) -> None:
    chance = random.Random(11)  # noqa: S311 - a load, not a secret
    configs = {
        PoolStrategy.SHARED: PoolConfig.shared(max_connections=4, acquire_timeout=30),
        PoolStrategy.PER_TENANT: PoolConfig.per_tenant(pool_size=3, acquire_timeout=30),
    }
    async with watched_manager_on(database, configs=configs, budget=BUDGET) as manager:
        own = [await provisioned(manager, f"own{number}") for number in range(4)]
        shared = [
            await provisioned(manager, f"shared{number}", PoolStrategy.SHARED)
            for number in range(4)
        ]
        served = cancelled = wrong = 0

        async def work(number: int) -> None:
            nonlocal served, wrong
            state = chance.choice(own + shared)
            name = str(state.tenant.spec.id)
            async with manager.lease(name) as connection:
                row = await connection.fetchrow(
                    "SELECT $1::int, current_setting('app.tenant_id', true), current_user::text",
                    number,
                )
                expected = (
                    (number, name, "poolkeeper_shared")
                    if state.tenant.spec.is_shared
                    else (number, None, f"tenant_{name}")
                )
                wrong += row is None or tuple(row) != expected
            served += 1

        loop = asyncio.get_running_loop()
        for first in range(0, LEASES, BATCH):
            tasks = [asyncio.create_task(work(number)) for number in range(first, first + BATCH)]
            for task in chance.sample(tasks, BATCH // 3):
                loop.call_later(chance.random() * 0.2, task.cancel)
            for result in await finished(tasks):
                assert result is None or isinstance(result, asyncio.CancelledError | Unavailable)
                cancelled += result is not None
        assert wrong == 0
        assert served + cancelled == LEASES
        assert served >= LEASES // 2
        for state in own + shared:
            stats = manager.tenant_stats(state)
            counters = stats.counters
            assert counters.connections_acquired == counters.connections_released
            assert state.leased == state.waiting == 0
        budget = manager.servers["local"].budget
        await eventually(
            lambda: (
                budget.used == sum(pool.metrics.total_connections for pool in manager.pools()) > 0
            )
        )
        await eventually(lambda: not budget.is_contended)
