"""Who gets a connection and when: order, limits, and nothing lost on the way."""

import asyncio
import errno
import re
from typing import Any

import asyncpg
import pytest

from app.domain.errors import PoolSaturated, PoolTimeout, ServerUnavailable, Unavailable
from app.domain.tenant import PoolStrategy
from app.pools import driver
from app.pools.borrower import Borrower
from app.pools.event_loop_lag import EventLoopLag
from app.pools.pool import Pool
from app.pools.servers.node_reservation import NodeReservation
from app.pools.tenant_state import TenantState
from app.wire import Login
from tests.fixtures.pools import Bench, account, finished, lent
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


def waiting(pool: Pool) -> int:
    return pool.metrics.waiting_requests


async def hold_until(pool: Pool, to: TenantState, served: list[object], name: object) -> None:
    async with lent(pool, to):
        served.append(name)
        await asyncio.sleep(0)


async def test_a_lent_connection_works_and_comes_back_idle(bench: Bench) -> None:
    pool, acme = bench.pool(), account()
    async with lent(pool, acme) as connection:
        assert await connection.raw.fetchval("SELECT 42") == 42
        assert pool.metrics.active_connections == acme.leased == 1
    assert pool.metrics.idle_connections == pool.metrics.total_connections == 1
    assert acme.leased == 0
    assert bench.busy == ["acme busy", "acme quiet"]


async def test_an_idle_connection_is_lent_again_the_most_recent_first(bench: Bench) -> None:
    pool, acme = bench.pool(), account()
    async with lent(pool, acme) as first, lent(pool, acme) as second:
        assert first is not second
    async with lent(pool, acme) as again:
        assert again is first
    assert pool.recorder.connections_opened == 2


async def test_fifty_waiters_are_served_in_their_order(bench: Bench) -> None:
    pool, acme, served = bench.pool(2), account(), list[object]()
    async with lent(pool, acme), lent(pool, acme):
        tasks = []
        for number in range(50):
            tasks.append(asyncio.create_task(hold_until(pool, acme, served, number)))
            await asyncio.sleep(0)
        assert waiting(pool) == acme.waiting == 50
    await finished(tasks)
    assert served == list(range(50))
    assert waiting(pool) == acme.waiting == 0


async def test_a_newcomer_does_not_overtake_a_waiter(bench: Bench) -> None:
    pool, acme, served = bench.pool(1), account(), list[object]()
    holder = await pool.acquire(acme, 1)
    waiter = asyncio.create_task(hold_until(pool, acme, served, "waiter"))
    await eventually(lambda: waiting(pool) == 1)
    pool.release(holder, reusable=True)
    # The waiter's task has not run yet; the connection is its own nevertheless.
    newcomer = asyncio.create_task(hold_until(pool, acme, served, "newcomer"))
    await finished([waiter, newcomer])
    assert served == ["waiter", "newcomer"]


async def test_a_caller_waits_until_its_deadline_and_is_counted(bench: Bench) -> None:
    pool, acme = bench.pool(1), account()
    async with lent(pool, acme):
        why = r"became free in 0\.05 s\. As many are on lease as its max_size allows: 1\.$"
        with pytest.raises(PoolTimeout, match=why):
            await pool.acquire(acme, 0.05)
        assert waiting(pool) == acme.waiting == 0
    assert pool.recorder.timeouts == acme.recorder.timeouts == 1


async def test_a_timeout_says_how_long_the_service_itself_was_busy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventLoopLag, "worst_since", lambda *_: 0.7)
    pool, acme = bench.pool(1), account()
    async with lent(pool, acme):
        with pytest.raises(PoolTimeout, match=r"of which the service itself was busy for 0\.7 s"):
            await pool.acquire(acme, 0.05)


async def test_a_deadline_in_the_past_is_a_timeout_at_once(bench: Bench) -> None:
    pool, acme = bench.pool(1), account()
    async with lent(pool, acme):
        with pytest.raises(PoolTimeout):
            await pool.acquire(acme, -1)


async def test_a_timeout_names_the_whole_wait_and_what_of_it_was_for_a_slot(bench: Bench) -> None:
    acme, caller = account(), Borrower()
    pool = bench.pool(1, owner=acme)
    caller.asked_at -= 5.0
    async with lent(pool, acme):
        with pytest.raises(PoolTimeout) as raised:
            await pool.acquire(acme, -0.134, caller, 4.9)
    said = re.fullmatch(
        r"No connection of pool acme became free in (\S+) s.*, 4\.9 s of which it waited for one "
        r"of the \d+ pools that POOLKEEPER_PER_TENANT_MAX_POOLS allows\. As many are on lease as "
        r"its max_size allows: 1\.",
        raised.value.detail,
    )
    assert said is not None
    assert float(said[1]) > 4.8
    counted = pool.recorder.counters
    assert (counted.pool_limit_waits, counted.pool_limit_wait_seconds) == (1, 4.9)
    assert counted.abandoned_seconds >= 4.9


async def test_who_waits_for_a_lease_of_his_own_tenant_is_told_so(bench: Bench) -> None:
    pool, acme = bench.pool(2), account(max_leases=1)
    async with lent(pool, acme):
        with pytest.raises(PoolTimeout, match=r"Tenant acme holds as many .* max_leases allows: 1"):
            await pool.acquire(acme, 0.05)


async def test_who_waits_while_other_pools_use_up_the_budget_is_told_so(bench: Bench) -> None:
    acme, globex = account(), account("globex")
    mine, theirs = bench.pool(2, owner=acme), bench.pool(2, owner=globex)
    async with lent(theirs, globex):
        bench.server.budget.set_limit(1)
        with pytest.raises(PoolTimeout, match=r"All 1 connections of server .* are in use"):
            await mine.acquire(acme, 0.05)


async def test_a_budget_that_nodes_have_is_no_connection_in_use(bench: Bench) -> None:
    pool, acme = bench.pool(2), account()
    bench.server.reserve(NodeReservation(owed=1000))
    with pytest.raises(PoolTimeout, match=r"Pools have 0 connections of server .*, nodes \d+\.$"):
        await pool.acquire(acme, 0.05)


async def test_a_long_wait_is_told_in_plain_digits(bench: Bench) -> None:
    pool, acme = bench.pool(1), account()
    async with lent(pool, acme):
        with pytest.raises(PoolTimeout, match=r"became free in 1,200\.05 s"):
            await pool.acquire(acme, 0.05, slot_seconds=1200)


async def test_beyond_max_waiting_a_caller_is_refused_at_once(bench: Bench) -> None:
    pool, acme, served = bench.pool(1, max_waiting=3), account(), list[object]()
    async with lent(pool, acme):
        tasks = [asyncio.create_task(hold_until(pool, acme, served, number)) for number in range(3)]
        await eventually(lambda: waiting(pool) == 3)
        with pytest.raises(PoolSaturated, match="3 callers wait"):
            await pool.acquire(acme, 5)
    await finished(tasks)
    assert len(served) == 3
    assert pool.recorder.rejected == acme.recorder.rejected == 1


async def test_shared_tenants_are_served_by_weight(bench: Bench) -> None:
    pool, served = bench.pool(4), list[object]()
    heavy = account("heavy", strategy=PoolStrategy.SHARED, weight=3)
    light = account("light", strategy=PoolStrategy.SHARED, weight=1)
    holders = [await pool.acquire(light, 1) for _ in range(4)]
    release = asyncio.Event()

    async def hold(tenant: TenantState) -> None:
        async with lent(pool, tenant):
            served.append(tenant.tenant.spec.id)
            await release.wait()

    tasks = []
    for tenant in [light] * 4 + [heavy] * 4:
        tasks.append(asyncio.create_task(hold(tenant)))
        await asyncio.sleep(0)
    for holder in holders:
        pool.release(holder, reusable=True)
    await eventually(lambda: len(served) == 4)
    assert (heavy.leased, light.leased) == (3, 1)
    release.set()
    await finished(tasks)


async def test_a_tenant_at_its_max_leases_is_passed_over(bench: Bench) -> None:
    pool, served = bench.pool(3), list[object]()
    capped = account("capped", strategy=PoolStrategy.SHARED, max_leases=1)
    other = account("other", strategy=PoolStrategy.SHARED)
    async with lent(pool, capped):
        again = asyncio.create_task(hold_until(pool, capped, served, "capped"))
        await eventually(lambda: capped.waiting == 1)
        await hold_until(pool, other, served, "other")
        assert served == ["other"]
        assert pool.metrics.total_connections == 2
    await finished([again])
    assert served == ["other", "capped"]


async def test_a_raised_cap_serves_who_waits(bench: Bench) -> None:
    pool, served = bench.pool(3), list[object]()
    capped = account("capped", strategy=PoolStrategy.SHARED, max_leases=1)
    async with lent(pool, capped):
        again = asyncio.create_task(hold_until(pool, capped, served, "capped"))
        await eventually(lambda: capped.waiting == 1)
        capped.update(account("capped", strategy=PoolStrategy.SHARED).tenant)
        pool.dispatch()
        await again
    assert served == ["capped"]


async def test_a_cancelled_waiter_leaves_no_trace(bench: Bench) -> None:
    pool, acme, served = bench.pool(1), account(), list[object]()
    async with lent(pool, acme):
        waiter = asyncio.create_task(hold_until(pool, acme, served, "cancelled"))
        await eventually(lambda: waiting(pool) == 1)
        waiter.cancel()
        await asyncio.wait({waiter})
        assert waiting(pool) == acme.waiting == 0
    assert served == []
    assert pool.metrics.idle_connections == 1
    assert pool.recorder.connections_acquired == pool.recorder.connections_released == 1


@pytest.mark.parametrize("somebody_else_waits", [False, True])
async def test_what_was_handed_to_a_waiter_cancelled_in_the_same_moment_comes_back(
    bench: Bench, *, somebody_else_waits: bool
) -> None:
    pool, acme, served = bench.pool(1), account(), list[object]()
    holder = await pool.acquire(acme, 1)
    waiter = asyncio.create_task(hold_until(pool, acme, served, "cancelled"))
    await eventually(lambda: waiting(pool) == 1)
    tasks = []
    if somebody_else_waits:
        tasks.append(asyncio.create_task(hold_until(pool, acme, served, "next")))
        await eventually(lambda: waiting(pool) == 2)
    pool.release(holder, reusable=True)
    waiter.cancel()
    await asyncio.wait({waiter})
    if tasks:
        await finished(tasks)
    assert served == (["next"] if somebody_else_waits else [])
    assert pool.metrics.idle_connections == 1
    assert acme.leased == 0
    assert pool.recorder.connections_acquired == pool.recorder.connections_released


async def test_a_connection_opened_for_a_waiter_who_left_serves_the_next(bench: Bench) -> None:
    pool, acme = bench.pool(1), account()
    impatient = asyncio.create_task(pool.acquire(acme, 5))
    await asyncio.sleep(0)
    assert waiting(pool) == 1
    impatient.cancel()
    async with lent(pool, acme):
        assert pool.recorder.connections_opened == 1


async def test_a_released_connection_that_is_not_reusable_is_replaced(bench: Bench) -> None:
    pool, acme = bench.pool(1), account()
    connection = await pool.acquire(acme, 1)
    pool.release(connection, reusable=False)
    pool.release(connection, reusable=False)
    async with lent(pool, acme) as other:
        assert other.pid != connection.pid
    assert (pool.recorder.connections_closed, pool.recorder.connections_opened) == (1, 2)
    assert pool.recorder.connections_acquired == pool.recorder.connections_released == 2


async def test_statistics_add_up_after_a_crowd(bench: Bench) -> None:
    pool = bench.pool(5)
    tenants = [account(f"t{number}", strategy=PoolStrategy.SHARED) for number in range(7)]

    async def work(number: int) -> None:
        async with lent(pool, tenants[number % 7]) as connection:
            await connection.raw.fetchval("SELECT 1")

    await asyncio.gather(*(work(number) for number in range(200)))
    assert pool.recorder.connections_acquired == pool.recorder.connections_released == 200
    assert sum(tenant.recorder.connections_acquired for tenant in tenants) == 200
    assert sum(tenant.recorder.connections_released for tenant in tenants) == 200
    assert pool.metrics.active_connections == waiting(pool) == 0
    assert pool.metrics.total_connections == pool.recorder.connections_opened <= 5
    assert pool.recorder.wait_seconds > 0
    assert [tenant.leased + tenant.waiting for tenant in tenants] == [0] * 7


async def test_a_pool_tells_its_state_in_one_line(bench: Bench) -> None:
    pool = bench.pool()
    assert repr(pool) == (
        "<Pool acme ready: 0 active, 0 idle, 0 connecting, 0 closing of 4; 0 waiting>"
    )


async def test_a_connection_that_breaks_between_login_and_use_gives_its_place_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[asyncpg.Connection] = []
    really_connect = driver.connect

    async def breaking(login: Login, **how: Any) -> asyncpg.Connection:
        connection = await really_connect(login, **how)
        opened.append(connection)
        connection.terminate()
        return connection

    monkeypatch.setattr(driver, "connect", breaking)
    pool, acme = bench.pool(1), account()
    with pytest.raises(Unavailable):
        await pool.acquire(acme, 5)
    assert opened
    await eventually(lambda: bench.server.budget.used == pool.connections.open)
    monkeypatch.setattr(driver, "connect", really_connect)
    async with lent(pool, acme):
        assert bench.server.budget.used == 1


async def test_a_connection_that_ends_right_after_its_login_gives_its_place_back(
    bench: Bench, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = driver.connect

    async def lose(*login: Any, **options: Any) -> asyncpg.Connection:
        connection = await connect(*login, **options)
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        async with database.connected() as other:
            await other.execute(f"select pg_terminate_backend({connection.get_server_pid()})")
        await asyncio.wait_for(ended.wait(), 60)
        return connection

    pool, acme = bench.pool(1), account()
    with monkeypatch.context() as patch:
        patch.setattr(driver, "connect", lose)
        with pytest.raises(ServerUnavailable):
            await pool.acquire(acme, 5)
        await eventually(lambda: bench.server.budget.used == pool.connections.open)
    async with lent(pool, acme):
        assert bench.server.budget.used == 1


async def test_a_socket_that_takes_no_option_gives_its_place_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(transport: asyncio.BaseTransport) -> None:
        raise OSError(errno.EOPNOTSUPP, "not on this socket")

    pool, acme = bench.pool(1), account()
    with monkeypatch.context() as patch:
        patch.setattr("app.pools.connection.notice_silence", refuse)
        with pytest.raises(Unavailable):
            await pool.acquire(acme, 5)
        await eventually(lambda: bench.server.budget.used == pool.connections.open)
    async with lent(pool, acme):
        assert bench.server.budget.used == 1
