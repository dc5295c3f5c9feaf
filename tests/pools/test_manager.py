"""Tenant in, lease out: one pool each, never too many, and the right one is evicted."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from time import monotonic
from typing import Any

import asyncpg
import pytest

from app.domain.errors import PoolDraining, PoolLimitReached, TenantDeleting
from app.domain.eviction import EvictionReason
from app.domain.pool import PoolConfig, PoolSize
from app.domain.tenant import PoolStrategy
from app.pools import registry
from app.pools.manager import TenantPoolManager
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState
from app.settings.errors import ENV_PREFIX
from app.settings.settings import Settings
from app.wire import Login
from tests.fixtures.load import load_on
from tests.fixtures.pools import finished, manager_on, no_pool_is_pinned, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched


@pytest.fixture
async def few(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """At most two pools at a time, and five provisioned tenants, a to e."""
    configs = {PoolStrategy.PER_TENANT: PoolConfig.per_tenant(max_pools=2, pool_size=2)}
    async with manager_on(database, configs=configs) as manager:
        for name in "abcde":
            await provisioned(manager, name)
        yield manager


async def use(manager: TenantPoolManager, *names: str) -> None:
    for name in names:
        async with manager.lease(name) as connection:
            await connection.fetchval("SELECT 1")


def opened(manager: TenantPoolManager) -> set[str]:
    return {pool.pool_id for pool in manager.pools()}


async def test_a_hundred_first_leases_open_one_pool(few: TenantPoolManager) -> None:
    both_leased = asyncio.Barrier(2)

    async def lease() -> None:
        async with few.lease("a"):
            await both_leased.wait()

    await asyncio.gather(*(lease() for _ in range(100)))
    assert opened(few) == {"a"}
    counters = few.tenant_stats(few.tenants.state("a")).counters
    assert counters.connections_opened == 2
    assert counters.connections_acquired == counters.connections_released == 100
    [pool] = few.pools()
    assert few.access_count(pool) == 100


async def test_the_least_recently_used_pool_gives_way(few: TenantPoolManager) -> None:
    await use(few, "a", "b", "a", "c")
    assert opened(few) == {"a", "c"}
    await use(few, "b")
    assert opened(few) == {"b", "c"}
    assert few.evictions == {EvictionReason.LRU: 2}
    assert few.active_pools == 2


async def test_an_expired_pool_goes_first_and_is_counted_so(
    database: Database, scrub_roles: None
) -> None:
    configs = {PoolStrategy.PER_TENANT: PoolConfig.per_tenant(max_pools=2, idle_timeout=0.0)}
    async with manager_on(database, configs=configs) as manager:
        for name in "abc":
            await provisioned(manager, name)
        await use(manager, "a", "b", "c")
        assert manager.evictions == {EvictionReason.IDLE: 1}
        assert {pool.pool_id for pool in manager.evict_expired()} == {"b", "c"}
        assert manager.evictions == {EvictionReason.IDLE: 3}
        assert manager.active_pools == 0


async def test_a_busy_pool_is_never_evicted(few: TenantPoolManager) -> None:
    async with few.lease("a") as connection:
        await use(few, "b", "c", "d", "b", "c")
        assert "a" in opened(few)
        assert not list(few.evict_expired())
        assert await connection.fetchval("SELECT 42") == 42


async def test_when_all_are_busy_a_newcomer_waits_its_deadline(few: TenantPoolManager) -> None:
    async with few.lease("a"), few.lease("b"):
        with pytest.raises(PoolLimitReached, match="All 2 pools of strategy per_tenant are busy"):
            async with few.lease("c", timeout=0.05):
                pass
        assert opened(few) == {"a", "b"}
        # Callers whose pool is open already do not wait.
        await use(few, "a")


async def test_who_waits_for_a_slot_is_a_waiting_caller_of_its_tenant(
    few: TenantPoolManager,
) -> None:
    state = few.tenants.state("c")
    async with few.lease("a"):
        async with few.lease("b"):
            newcomers = [asyncio.create_task(use(few, "c")) for _ in range(2)]
            await eventually(lambda: few.tenant_metrics(state).waiting_requests == 2)
            assert state in few.recently_active_tenants()
            assert few.awaited_pools == ["c"]
            began = monotonic()
            await eventually(lambda: monotonic() > began)
        assert await finished(newcomers) == [None] * 2
    stats = few.tenant_stats(state)
    assert stats.metrics.waiting_requests == 0
    assert few.awaited_pools == []
    counted = stats.counters
    assert (counted.connections_acquired, counted.pool_limit_waits) == (2, 2)
    assert counted.wait_seconds >= counted.pool_limit_wait_seconds > 0.0
    assert (counted.abandoned, counted.timeouts) == (0, 0)
    assert stats.max_wait_time_ms >= 1000 * counted.pool_limit_wait_seconds / 2


async def test_a_wait_that_ends_without_a_slot_is_a_timeout_unless_the_caller_left(
    few: TenantPoolManager,
) -> None:
    state = few.tenants.state("c")
    async with few.lease("a"), few.lease("b"):
        gone = asyncio.create_task(use(few, "c"))
        await eventually(lambda: few.tenant_metrics(state).waiting_requests == 1)
        gone.cancel()
        await asyncio.wait({gone})
        counted = few.tenant_stats(state).counters
        assert (counted.abandoned, counted.timeouts, counted.pool_limit_waits) == (1, 0, 1)
        limit = r"for \d+(\.\d+)? s now. POOLKEEPER_PER_TENANT_MAX_POOLS limits them"
        with pytest.raises(PoolLimitReached, match=limit):
            async with few.lease("c", timeout=0.05):
                pass
    stats = few.tenant_stats(state)
    counted = stats.counters
    assert (counted.abandoned, counted.timeouts, counted.pool_limit_waits) == (2, 1, 2)
    assert counted.abandoned_seconds == counted.pool_limit_wait_seconds >= 0.05
    assert stats.metrics.waiting_requests == 0


@pytest.mark.parametrize("config", [PoolConfig.per_tenant(), PoolConfig.per_database()])
def test_the_limit_of_pools_names_its_setting(config: PoolConfig) -> None:
    name = config.max_pools_setting.removeprefix(ENV_PREFIX).lower()
    assert Settings.model_fields[name].default == config.max_pools


async def test_a_waiting_newcomer_is_served_when_a_pool_becomes_quiet(
    few: TenantPoolManager,
) -> None:
    async with few.lease("a"):
        async with few.lease("b"):
            newcomers = [asyncio.create_task(use(few, name)) for name in "cde"]
            await asyncio.sleep(0)
        assert await finished(newcomers) == [None] * 3
        assert "a" in opened(few)


async def test_those_who_wait_for_one_pool_are_all_served_once_it_is_open(
    few: TenantPoolManager,
) -> None:
    release = asyncio.Event()

    async def hold() -> None:
        async with few.lease("c"):
            await release.wait()

    async with few.lease("a"):
        async with few.lease("b"):
            first = asyncio.create_task(hold())
            await asyncio.sleep(0)
            other = asyncio.create_task(use(few, "d"))
            await asyncio.sleep(0)
            second = asyncio.create_task(use(few, "c"))
            await asyncio.sleep(0)
        # c is open and stays busy; d, ahead of the second caller in the queue, finds no room.
        await finished([second])
        assert not other.done()
        release.set()
        await finished([first, other])


async def test_a_cancelled_newcomer_leaves_its_chance_to_the_next(few: TenantPoolManager) -> None:
    async with few.lease("a"):
        async with few.lease("b"):
            gone = asyncio.create_task(use(few, "c"))
            await asyncio.sleep(0)
            waits = asyncio.create_task(use(few, "d"))
            await asyncio.sleep(0)
        gone.cancel()
        await finished([waits])
        await asyncio.wait({gone})


class HeldLogins:
    """Logins of one tenant, which wait for `go`."""

    def __init__(self, server: Server, user: str) -> None:
        self.go = asyncio.Event()
        self.begun = 0
        self._connect = server.connect
        self._user = user

    async def connect(self, login: Login, **arguments: Any) -> asyncpg.Connection:
        if login.user == self._user:
            self.begun += 1
            await self.go.wait()
        return await self._connect(login, **arguments)


@pytest.fixture
def held(few: TenantPoolManager, monkeypatch: pytest.MonkeyPatch) -> HeldLogins:
    """Logins of the tenant b."""
    held = HeldLogins(few.servers["local"], "tenant_b")
    monkeypatch.setattr(few.servers["local"], "connect", held.connect)
    return held


async def test_a_pool_is_not_evicted_while_its_first_login_is_under_way(
    few: TenantPoolManager, held: HeldLogins
) -> None:
    async with few.lease("a"):
        gone = asyncio.create_task(use(few, "b"))
        await eventually(lambda: held.begun == 1)
        gone.cancel()
        await asyncio.wait({gone})
        # The caller that it was for has left; the next one gets it.
        newcomer = asyncio.create_task(use(few, "c"))
        with pytest.raises(PoolLimitReached):
            async with few.lease("d", timeout=0.05):
                pass
        assert opened(few) == {"a", "b"}
        assert not list(few.evict_expired())
        next_one = asyncio.create_task(use(few, "b"))
        await asyncio.sleep(0)
        held.go.set()
        await finished([newcomer, next_one])
        assert held.begun == 1
    assert opened(few) == {"a", "c"}


async def test_a_first_login_that_fails_leaves_its_slot_to_the_next(
    few: TenantPoolManager, held: HeldLogins
) -> None:
    async with few.lease("a"):
        gone = asyncio.create_task(use(few, "b"))
        await eventually(lambda: held.begun == 1)
        gone.cancel()
        await asyncio.wait({gone})
        async with few.servers["local"].admin() as admin:
            await admin.execute("ALTER ROLE tenant_b NOLOGIN")
        newcomer = asyncio.create_task(use(few, "c"))
        await asyncio.sleep(0)
        held.go.set()
        assert await finished([newcomer]) == [None]


async def test_a_pool_that_is_never_quiet_gives_its_slot_to_those_who_wait(
    few: TenantPoolManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_TURN", 0.05)
    async with load_on(few, *"abcde", clients=3, patience=60.0) as load:
        for _ in range(3):
            before = Counter(load.served_by)
            await eventually(
                lambda: all(load.served_by[each] >= before[each] + 5 for each in "abcde"),  # noqa: B023
                because="each tenant is served",
            )
    assert load.failures == []
    await no_pool_is_pinned(few)


async def test_a_long_lease_delays_its_own_tenant_for_a_turn_at_most(
    few: TenantPoolManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_TURN", 0.05)
    async with few.lease("a"), few.lease("b"):
        newcomer = asyncio.create_task(use(few, "c"))
        for _ in range(5):
            await use(few, "a", "b")
        assert opened(few) == {"a", "b"}
        assert not newcomer.done()
    assert await finished([newcomer]) == [None]


async def test_those_whose_pool_yielded_go_on_when_nobody_waits_any_more(
    few: TenantPoolManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_TURN", 0.0)
    async with few.lease("a"), few.lease("b"):
        newcomer = asyncio.create_task(use(few, "c"))
        await asyncio.sleep(0)
        # It is a's turn, for ever.
        monkeypatch.setattr(registry, "_TURN", 3600.0)
        behind = asyncio.create_task(use(few, "a"))
        await asyncio.sleep(0)
        await use(few, "b")
        assert not behind.done()
        newcomer.cancel()
        await finished([behind])
        await use(few, "a", "b")


async def test_counters_survive_eviction(few: TenantPoolManager) -> None:
    await use(few, "a", "b", "c", "a")
    stats = few.tenant_stats(few.tenants.state("a"))
    assert stats.counters.connections_acquired == stats.counters.connections_released == 2
    assert stats.counters.connections_opened == 2
    assert stats.last_activity is not None


async def test_pools_with_a_min_size_are_not_evicted(few: TenantPoolManager) -> None:
    await use(few, "a")
    [pool] = few.pools()
    few.resize(pool, PoolSize(min_size=1, max_size=2, warmup_size=1))
    await use(few, "b", "c", "d")
    assert opened(few) == {"a", "d"}
    few.resize(pool, PoolSize(min_size=0, max_size=2, warmup_size=1))
    await use(few, "b", "c")
    assert opened(few) == {"b", "c"}


async def test_a_forced_eviction_reports_what_it_closed_and_cut(few: TenantPoolManager) -> None:
    await use(few, "a")
    [pool] = few.pools()
    lease = few.lease("a")
    await lease.__aenter__()
    eviction = await few.evict(pool, EvictionReason.FORCED, 0)
    assert (eviction.pool_id, eviction.closed, eviction.cut) == ("a", 1, 1)
    assert opened(few) == set()
    await lease.__aexit__(ValueError, ValueError(), None)
    await use(few, "a")
    assert few.evictions == {EvictionReason.FORCED: 1}


async def test_an_eviction_whose_caller_leaves_goes_on(few: TenantPoolManager) -> None:
    async with few.lease("a"):
        [pool] = few.pools()
        evicting = asyncio.create_task(few.evict(pool, EvictionReason.FORCED, 30))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        evicting.cancel()
        await asyncio.wait({evicting})
        with pytest.raises(PoolDraining):
            await use(few, "a")
    await eventually(lambda: opened(few) == set())
    await use(few, "a")


async def test_shared_tenants_of_a_server_share_one_pool_and_keep_their_own_accounts(
    few: TenantPoolManager,
) -> None:
    accounts: list[TenantState] = [
        await provisioned(few, f"s{number}", PoolStrategy.SHARED) for number in range(3)
    ]
    await use(few, "s0", "s1", "s2", "s0")
    assert opened(few) == {"shared@local"}
    counted = [few.tenant_stats(state).counters.connections_acquired for state in accounts]
    assert counted == [2, 1, 1]
    [pool] = few.pools()
    assert pool.recorder.counters.connections_acquired == 4


async def test_deleting_a_shared_tenant_fails_its_waiting_callers_and_nobody_elses(
    few: TenantPoolManager,
) -> None:
    for name in ("leaving", "staying"):
        await provisioned(few, name, PoolStrategy.SHARED)
    pool = await few.open_pool(few.tenants.state("staying"), 1)
    pool.resize(PoolSize(min_size=0, max_size=1, warmup_size=0))

    async def borrow(name: str) -> None:
        async with few.lease(name):
            pass

    async with few.lease("leaving"):
        callers = [asyncio.create_task(borrow(n)) for n in ("leaving", "staying", "leaving")]
        await eventually(lambda: pool.metrics.waiting_requests == len(callers))
        state = few.tenants.state("leaving")
        few.put_tenant(replace(state.tenant, deleting=True))
        assert (state.waiting, pool.metrics.waiting_requests) == (0, 1)
    first, other, second = await finished(callers)
    assert isinstance(first, TenantDeleting)
    assert isinstance(second, TenantDeleting)
    assert other is None


async def test_closing_lets_leases_end_and_refuses_new_ones(few: TenantPoolManager) -> None:
    async with few.lease("a") as connection:
        closing = asyncio.create_task(few.close(5))
        await asyncio.sleep(0)
        with pytest.raises(PoolDraining):
            await use(few, "b")
        assert await connection.fetchval("SELECT 42") == 42
    await closing
    await few.close(0)


async def test_closing_goes_on_when_its_caller_is_gone(few: TenantPoolManager) -> None:
    await use(few, "a")
    async with few.lease("b") as connection:
        assert await connection.fetchval("SELECT 42") == 42
        closing = asyncio.create_task(few.close(20))
        await asyncio.sleep(0)
        # Nothing that it has started has made its first step.
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert await connection.fetchval("SELECT 42") == 42
    budget = few.servers["local"].budget
    await eventually(lambda: not (budget.used or few._tasks))


async def test_three_hundred_tenants_fit_under_ten_pools(
    database: Database, scrub_roles: None
) -> None:
    configs = {
        PoolStrategy.PER_TENANT: PoolConfig.per_tenant(
            max_pools=10, pool_size=2, acquire_timeout=30
        )
    }
    async with manager_on(database, configs=configs, budget=12) as manager:
        # Making roles takes time: tenants share thirty of them.
        for number in range(30):
            await provisioned(manager, f"t{number}")
        names = [f"t{number % 30}" for number in range(300)]
        async with watched(database, budget=12):
            tasks = [asyncio.create_task(use(manager, name)) for name in names]
            assert await finished(tasks) == [None] * 300
        assert manager.active_pools <= 10
        assert manager.evictions[EvictionReason.LRU] >= 20
        states = manager.tenants.values()
        counted = [manager.tenant_stats(state).counters for state in states]
        assert sum(each.connections_acquired for each in counted) == 300
        assert sum(each.timeouts + each.connect_failures for each in counted) == 0
