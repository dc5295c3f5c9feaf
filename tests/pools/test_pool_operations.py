"""What operators and the poller do to a pool: warm, pause, recycle, drain, sweep, check."""

import asyncio
from time import monotonic

import pytest

from app.domain.errors import PoolDraining, PoolPaused, PoolTimeout
from app.domain.pool import DrainResult, PoolSize, PoolState
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState
from tests.fixtures.pools import (
    Bench,
    account,
    backends,
    bench_on,
    finished,
    in_background,
    lent,
    pids,
    through,
)
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually


def state_of(pool: Pool) -> PoolState:
    return pool.state


async def test_a_pool_warms_up_and_is_ready(bench: Bench) -> None:
    pool = bench.pool(5, warmup_size=3)
    assert state_of(pool) is PoolState.WARMING_UP
    assert await pool.wait_until_warm(5)
    assert state_of(pool) is PoolState.READY
    assert pool.metrics.idle_connections == 3
    assert pool.recorder.created_at is not None


async def test_a_pool_that_cannot_warm_up_in_time_says_so(bench: Bench) -> None:
    pool = bench.pool(5, warmup_size=3)
    assert not await pool.wait_until_warm(0)


async def test_a_warming_pool_already_lends(bench: Bench) -> None:
    pool = bench.pool(3, warmup_size=3)
    async with lent(pool, account()):
        pass
    assert await pool.wait_until_warm(5)


async def test_a_budget_too_small_ends_the_warm_up_and_takes_from_nobody(
    database: Database,
) -> None:
    async with bench_on(database, budget=3) as bench:
        first = bench.pool(2, warmup_size=2, name="first")
        assert await first.wait_until_warm(5)
        second = bench.pool(3, warmup_size=3, name="second")
        assert not await second.wait_until_warm(5)
        assert state_of(second) is PoolState.READY
        assert not bench.server.budget.is_contended
        assert first.metrics.idle_connections == 2


async def test_a_pool_has_no_more_than_its_share_of_its_size_and_goes_on_when_that_grows(
    bench: Bench,
) -> None:
    pool, acme = bench.pool(4), account()
    leased = [await pool.acquire(acme, 60) for _ in range(4)]
    pool.limit_to(2)
    pool.release(leased.pop(), reusable=True)
    pool.release(leased.pop(), reusable=True)
    await eventually(lambda: pool.connections.open == 2)
    pool.limit_to(0)
    for connection in leased:
        pool.release(connection, reusable=True)
    await eventually(lambda: pool.connections.open == 0)
    callers = in_background(lambda: _use(pool, acme), 3, "caller")
    await eventually(lambda: pool.metrics.waiting_requests == 3)
    assert (pool.connections.open, pool.demand) == (0, 3)
    pool.limit_to(1)
    assert await finished(callers) == [None, None, None]
    assert pool.connections.open == 1
    pool.limit_to(9)
    assert pool.most == 4
    pool.resize(PoolSize(max_size=3))
    pool.limit_to(None)
    assert pool.most == 3


async def test_callers_whose_time_ends_are_told_that_nodes_have_what_their_pool_lacks(
    bench: Bench,
) -> None:
    pool = bench.pool(4)
    pool.limit_to(0)
    with pytest.raises(PoolTimeout, match="It may have none of its 4 connections; nodes"):
        await pool.acquire(account(), 0.01)


async def test_a_pool_whose_share_is_smaller_than_its_first_size_is_warm_with_that(
    bench: Bench,
) -> None:
    pool = bench.pool(3, warmup_size=3)
    pool.limit_to(1)
    assert await pool.wait_until_warm(60)
    await eventually(lambda: pool.connections.open == 1)


async def test_callers_of_a_paused_pool_wait_and_are_served_when_it_resumes(bench: Bench) -> None:
    pool, acme = bench.pool(2), account()
    leased = await pool.acquire(acme, 1)
    async with lent(pool, acme):
        pass
    pool.pause()
    assert state_of(pool) is PoolState.PAUSED
    assert pool.metrics.idle_connections == 0
    pool.release(leased, reusable=True)
    assert pool.metrics.total_connections == 0
    await eventually(lambda: bench.server.budget.used == 0)
    callers = in_background(lambda: _use(pool, acme), 3, "caller")
    await eventually(lambda: pool.metrics.waiting_requests == 3)
    assert pool.metrics.total_connections == 0
    pool.resume()
    assert await finished(callers) == [None, None, None]
    assert state_of(pool) is PoolState.READY


async def test_callers_whose_time_ends_are_told_that_the_pool_is_paused(bench: Bench) -> None:
    pool, acme = bench.pool(2), account()
    pool.pause()
    with pytest.raises(PoolPaused, match=r"acme is paused, and was not resumed in 0\.01 s"):
        await pool.acquire(acme, 0.01)
    assert acme.recorder.counters.timeouts == 1


async def test_a_paused_pool_that_refuses_fails_those_who_wait_and_those_who_come(
    bench: Bench,
) -> None:
    pool, acme = bench.pool(1, refuses_when_paused=True), account()
    async with lent(pool, acme):
        waiting = asyncio.create_task(pool.acquire(acme, 60))
        await eventually(lambda: pool.metrics.waiting_requests == 1)
        pool.pause()
        with pytest.raises(PoolPaused):
            await waiting
        with pytest.raises(PoolPaused):
            await pool.acquire(acme, 60)
        assert pool.metrics.waiting_requests == 0
    assert acme.recorder.counters.rejected == 1
    pool.resume()
    async with lent(pool, acme):
        pass


async def _use(pool: Pool, acme: TenantState) -> None:
    async with lent(pool, acme) as connection:
        await connection.raw.fetchval("SELECT pg_sleep(0.01)")


async def test_recycling_replaces_every_back_end_and_fails_no_borrower(
    bench: Bench, postgres_server: Database
) -> None:
    pool, acme = bench.pool(4, min_size=3), account()
    await eventually(lambda: pool.metrics.idle_connections == 3)
    before = await pids(postgres_server)
    async with lent(pool, acme) as connection:
        assert pool.recycle() == 3
        assert await connection.raw.fetchval("SELECT 42") == 42
    await eventually(lambda: pool.metrics.idle_connections == 3 and bench.server.budget.used == 3)
    assert not await pids(postgres_server) & before


async def test_recycling_also_replaces_what_is_being_opened(bench: Bench) -> None:
    pool = bench.pool(2, warmup_size=2)
    await asyncio.sleep(0)
    pool.recycle()
    assert await pool.wait_until_warm(5)
    assert pool.recorder.connections_opened >= 2
    async with lent(pool, account()) as connection:
        assert connection.epoch == 1


async def test_draining_lets_leases_end_and_refuses_new_ones(bench: Bench) -> None:
    pool, acme = bench.pool(2), account()
    leased = await pool.acquire(acme, 1)
    draining = asyncio.create_task(pool.drain(5))
    await asyncio.sleep(0)
    assert state_of(pool) is PoolState.DRAINING
    with pytest.raises(PoolDraining, match="The pool acme is draining"):
        await pool.acquire(acme, 1)
    assert await leased.raw.fetchval("SELECT 42") == 42
    pool.release(leased, reusable=True)
    assert await draining == DrainResult(closed=1, cut=0)
    assert state_of(pool) is PoolState.CLOSED
    assert bench.server.budget.used == 0


async def test_draining_tells_those_who_wait(bench: Bench) -> None:
    pool, acme = bench.pool(1), account()
    async with lent(pool, acme):
        waiter = asyncio.create_task(pool.acquire(acme, 5))
        await eventually(lambda: pool.metrics.waiting_requests == 1)
        draining = asyncio.create_task(pool.drain(5))
        with pytest.raises(PoolDraining):
            await waiter
    await draining


async def test_leases_beyond_the_deadline_are_cut_and_reported(
    bench: Bench, postgres_server: Database
) -> None:
    pool, acme = bench.pool(3), account()
    first, _ = await pool.acquire(acme, 1), await pool.acquire(acme, 1)
    async with lent(pool, acme):
        pass
    sleeping = asyncio.create_task(first.raw.fetchval("SELECT pg_sleep(60)"))
    await eventually(lambda: backends(postgres_server, "wait_event = 'PgSleep'"))
    assert await pool.drain(0.05) == DrainResult(closed=3, cut=2)
    await finished([sleeping])
    assert await pids(postgres_server) == set()
    assert bench.server.budget.used == 0
    pool.release(first, reusable=True)
    assert pool.metrics.total_connections == acme.leased == 0
    assert pool.recorder.connections_acquired == pool.recorder.connections_released == 3


async def test_a_pool_can_be_drained_twice_also_at_once(bench: Bench) -> None:
    pool, acme = bench.pool(2), account()
    leased = await pool.acquire(acme, 1)
    drains = in_background(lambda: pool.drain(5), 2, "drain")
    await asyncio.sleep(0)
    pool.release(leased, reusable=True)
    assert await finished(drains) == [DrainResult(closed=1, cut=0)] * 2
    assert await pool.drain(0) == DrainResult(closed=0, cut=0)
    assert state_of(pool) is PoolState.CLOSED


async def test_a_drain_with_no_deadline_left_can_overtake_a_patient_one(bench: Bench) -> None:
    pool, acme = bench.pool(2), account()
    await pool.acquire(acme, 1)
    patient = asyncio.create_task(pool.drain(60))
    await asyncio.sleep(0)
    assert (await pool.drain(0)).cut == 1
    await finished([patient])


async def test_what_is_still_connecting_when_a_pool_is_drained_is_closed(bench: Bench) -> None:
    pool = bench.pool(5, warmup_size=5)
    await asyncio.sleep(0)
    assert pool.connections.connecting == 5
    await pool.drain(0)
    assert pool.connections.open == pool.metrics.total_connections == 0
    assert bench.server.budget.used == 0


async def test_a_connect_slower_than_the_drain_is_given_up(
    database: Database, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pools.pool._SETTLE_DEADLINE", 0.1)
    proxied = through(database, fault_proxy)
    async with bench_on(proxied) as bench:
        fault_proxy.black_hole()
        pool = bench.pool(5, warmup_size=2)
        await eventually(lambda: fault_proxy.accepted >= 3)
        await pool.drain(0)
        assert pool.connections.open == bench.server.budget.used == 0
        await fault_proxy.pass_through()
    await bench.server.close()
    assert bench.server._probe is None


async def test_a_closed_pool_stays_closed(bench: Bench) -> None:
    pool = bench.pool(2)
    await pool.drain(0)
    pool.pause()
    pool.resume()
    assert state_of(pool) is PoolState.CLOSED
    with pytest.raises(PoolDraining):
        await pool.acquire(account(), 1)


async def test_connections_unused_for_the_idle_timeout_are_closed_down_to_min_size(
    bench: Bench,
) -> None:
    pool, acme, before = bench.pool(4, min_size=1, idle_timeout=60), account(), monotonic()
    async with lent(pool, acme), lent(pool, acme), lent(pool, acme):
        pass
    assert pool.close_expired(before + 59) == 0
    assert pool.close_expired(monotonic() + 61) == 2
    assert pool.metrics.idle_connections == 1


@pytest.mark.parametrize(
    ("idle_seconds", "lasts", "warm", "left"),
    [(10.0, 10, 0, 1), (10.0, 10, 2, 2), (90.0, 60, 2, 1), (None, 60, 2, 1)],
)
async def test_connections_beyond_the_advised_size_close_earlier_and_none_later(
    bench: Bench, idle_seconds: float | None, lasts: int, warm: int, left: int
) -> None:
    pool, acme, before = bench.pool(4, min_size=1, idle_timeout=60), account(), monotonic()
    async with lent(pool, acme), lent(pool, acme), lent(pool, acme):
        pass
    pool.keep_warm(warm, idle_seconds)
    assert pool.close_expired(before + lasts - 2) == 0
    assert pool.close_expired(monotonic() + lasts + 2) == 3 - left
    assert pool.metrics.idle_connections == left


async def test_a_connection_beyond_the_advised_size_closes_although_it_was_used_a_moment_ago(
    bench: Bench,
) -> None:
    pool, acme = bench.pool(4, idle_timeout=600), account()
    async with lent(pool, acme), lent(pool, acme), lent(pool, acme):
        pass
    pool.keep_warm(1, 10.0)
    async with lent(pool, acme):
        # The one in use stays, and so does everything that is advised.
        assert pool.close_expired(monotonic() + 11) == 2
    assert pool.metrics.idle_connections == 1


async def test_connections_past_their_lifetime_are_replaced(
    bench: Bench, postgres_server: Database
) -> None:
    opened = monotonic()
    pool = bench.pool(4, min_size=2, max_lifetime=600, idle_timeout=10_000)
    await eventually(lambda: pool.metrics.idle_connections == 2)
    before = await pids(postgres_server)
    assert pool.close_expired(opened + 539) == 0
    assert pool.close_expired(monotonic() + 601) == 2
    await eventually(lambda: pool.metrics.idle_connections == 2 and bench.server.budget.used == 2)
    assert not await pids(postgres_server) & before


async def test_an_expired_connection_is_not_kept_when_it_comes_back(bench: Bench) -> None:
    pool, acme = bench.pool(1, max_lifetime=0.01), account()
    async with lent(pool, acme) as first:
        await eventually(lambda: monotonic() > first.expires_at)
    assert pool.metrics.total_connections == 0
    async with lent(pool, acme) as second:
        assert second is not first


async def test_lifetimes_are_spread_downwards(bench: Bench) -> None:
    pool = bench.pool(8, min_size=8, max_lifetime=1000)
    await eventually(lambda: pool.metrics.idle_connections == 8)
    limits = {connection.expires_at - connection.idle_since for connection in pool.connections.idle}
    assert len(limits) == 8
    assert all(899 < limit <= 1000 for limit in limits)


async def test_a_killed_idle_back_end_is_noticed_and_replaced(
    bench: Bench, postgres_server: Database
) -> None:
    pool = bench.pool(3, min_size=2)
    await eventually(lambda: pool.metrics.idle_connections == 2)
    victim = pool.connections.idle[0].pid
    async with postgres_server.connected() as connection:
        await connection.execute("SELECT pg_terminate_backend($1)", victim)
    await eventually(lambda: pool.recorder.connections_lost == 1)
    await eventually(lambda: pool.metrics.idle_connections == 2)
    assert victim not in await pids(postgres_server)


async def test_a_check_drops_a_back_end_that_does_not_answer_and_counts_it(
    database: Database, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench_on(through(database, fault_proxy)) as bench:
        pool, acme = bench.pool(3), account()
        async with lent(pool, acme), lent(pool, acme):
            pass
        assert await pool.connections.check(not_since=monotonic()) == (2, 0)
        with monkeypatch.context() as patch:
            patch.setattr("app.pools.connections._CHECK_DEADLINE", 0.1)
            patch.setattr("app.pools.connections._CLOSE_DEADLINE", 0.1)
            patch.setattr("app.pools.servers.server._GONE_DEADLINE", 0.1)
            fault_proxy.black_hole()
            assert await pool.connections.check(not_since=monotonic()) == (2, 2)
        assert pool.metrics.total_connections == 0
        assert pool.recorder.health_check_failures == 2
        await fault_proxy.pass_through()
        async with lent(pool, acme) as connection:
            assert await connection.raw.fetchval("SELECT 42") == 42


async def test_a_check_leaves_alone_what_was_used_a_moment_ago(bench: Bench) -> None:
    pool, before = bench.pool(2), monotonic()
    async with lent(pool, account()):
        pass
    assert await pool.connections.check(not_since=before) == (0, 0)


async def checked(bench: Bench) -> tuple[Pool, asyncio.Task[tuple[int, int]]]:
    """A pool with two idle connections, and a check of them that has just begun."""
    pool, acme = bench.pool(3), account()
    async with lent(pool, acme), lent(pool, acme):
        pass
    checking = asyncio.create_task(pool.connections.check(not_since=monotonic()))
    await asyncio.sleep(0)
    return pool, checking


async def test_a_check_cut_short_gives_every_connection_back(bench: Bench) -> None:
    pool, checking = await checked(bench)
    checking.cancel()
    await asyncio.wait({checking})
    await eventually(lambda: bench.server.budget.used == pool.metrics.total_connections)
    assert not pool.connections.checking
    async with lent(pool, account()):
        pass


async def test_a_pool_paused_during_a_check_keeps_nothing(bench: Bench) -> None:
    pool, checking = await checked(bench)
    pool.pause()
    await checking
    assert pool.metrics.total_connections == 0


async def test_a_pool_drained_during_a_check_keeps_nothing(bench: Bench) -> None:
    pool, checking = await checked(bench)
    await pool.drain(0)
    await checking
    await eventually(lambda: bench.server.budget.used == 0)
    assert pool.connections.open == 0


async def test_min_size_is_kept_when_connections_break(
    bench: Bench, postgres_server: Database
) -> None:
    pool, acme = bench.pool(4, min_size=2), account()
    connection = await pool.acquire(acme, 5)
    pool.release(connection, reusable=False)
    await eventually(lambda: pool.metrics.idle_connections == 2 and bench.server.budget.used == 2)
    assert len(await pids(postgres_server)) == 2
