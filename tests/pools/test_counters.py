"""What went through a pool between two looks: integrals against a schedule worked out by hand."""

import asyncio

import pytest

from app.domain.counters import CounterReading, FlowBetween, between
from app.domain.errors import PoolSaturated, PoolTimeout, ServerUnavailable
from app.domain.pool import PoolConfig, PoolSize
from app.domain.tenant import PoolStrategy
from app.pools.connection import PooledConnection
from app.pools.driver import Login
from app.pools.pool import Pool
from app.pools.pool_login import PoolLogin
from app.pools.recorder import Recorder
from app.pools.tenant_state import TenantState
from tests.fixtures.pools import account
from tests.fixtures.unreal import UnrealServer

_NOBODY = Login(host="", port=0, user="", password="", database="")
_DEADLINE = 1e6


class Stage:
    """A pool of two unreal connections, and a clock that stands until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in ("lending", "connections", "pool"):
            monkeypatch.setattr(f"app.pools.{module}.monotonic", lambda: self.now)
        self.server = UnrealServer(10)
        self.acme = account()
        self.pool = self.open(self.acme.recorder)

    def open(self, recorder: Recorder) -> Pool:
        pool = Pool(
            "acme",
            PoolSize(max_size=2, warmup_size=0),
            PoolConfig(strategy=PoolStrategy.PER_TENANT, max_waiting=2),
            server=self.server.as_server(),
            login=PoolLogin(lambda: _NOBODY),
            recorder=recorder,
            on_busy=lambda _: None,
            on_quiet=lambda _: None,
        )
        pool.open()
        return pool

    async def connect(self) -> None:
        """Let the attempts under way succeed, and whoever waits for them go on."""
        for attempt in list(self.server.connecting):
            attempt.set_result(None)
        await self.turn()

    async def turn(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def ask(self, who: TenantState | None = None) -> asyncio.Task[PooledConnection]:
        task = asyncio.create_task(self.pool.acquire(who or self.acme, _DEADLINE), name="caller")
        await self.turn()
        return task

    def look(self, seconds: float = 0.0) -> CounterReading:
        """Let *seconds* pass, then look."""
        self.now += seconds
        return self.pool.flow(self.now)

    async def close(self) -> None:
        drain = asyncio.create_task(self.pool.drain(0), name="drain")
        while not drain.done():
            await self.turn()
            for closing in list(self.server.closing):
                closing.set_result(None)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def integrals(flow: CounterReading | FlowBetween) -> tuple[float, float, float]:
    return (flow.busy_seconds, flow.waiting_seconds, flow.open_seconds)


async def test_integrals_are_exact_at_every_look(stage: Stage) -> None:
    first = await stage.ask()
    second = await stage.ask()
    assert integrals(stage.look(1.0)) == (0.0, 2.0, 0.0)
    await stage.connect()
    third = await stage.ask()
    assert integrals(stage.look(2.0)) == (4.0, 4.0, 4.0)
    stage.pool.release(first.result(), reusable=True)
    # Handed over in this very moment, though the third caller has not run yet.
    before = stage.look()
    assert integrals(before) == (4.0, 4.0, 4.0)
    assert (before.acquired, before.released, before.waiting) == (3, 1, 0)
    await stage.turn()
    assert integrals(stage.look(0.5)) == (5.0, 4.0, 5.0)
    stage.pool.release(second.result(), reusable=True)
    stage.pool.release(third.result(), reusable=False)
    after = stage.look(8.0)
    assert integrals(after) == (5.0, 4.0, 13.0)
    found = between(before, after)
    assert integrals(found) == (1.0, 0.0, 9.0)
    assert (found.seconds, found.mean_active, found.mean_open) == (8.5, 1 / 8.5, 9 / 8.5)
    assert (found.arrivals, found.acquired, found.released, found.wait.count) == (0, 0, 2, 0)
    assert found.hold.count == 2
    await stage.close()
    assert integrals(stage.look()) == (5.0, 4.0, 13.0)


async def test_how_long_connects_took_is_told_only_where_there_were_any(stage: Stage) -> None:
    first, second = await stage.ask(), await stage.ask()
    before = stage.look(3.0)
    await stage.connect()
    after = stage.look(1.0)
    assert between(before, after).mean_connect == 3.0
    assert between(after, stage.look(1.0)).mean_connect is None
    for holder in (first, second):
        stage.pool.release(holder.result(), reusable=True)
    await stage.close()


async def test_waits_in_vain_count_until_they_end_and_as_arrivals(stage: Stage) -> None:
    holders = [await stage.ask(), await stage.ask()]
    await stage.connect()
    before = stage.look()
    cancelled, timed_out = await stage.ask(), await stage.ask()
    with pytest.raises(PoolSaturated):
        await stage.pool.acquire(stage.acme, _DEADLINE)
    assert stage.look(3.0).waiting_seconds - before.waiting_seconds == 6.0
    cancelled.cancel()
    assert stage.look().waiting_seconds - before.waiting_seconds == 6.0
    await stage.turn()
    assert stage.look(1.0).waiting_seconds - before.waiting_seconds == 7.0
    [waiter] = stage.pool._waiters
    stage.pool._time_out(waiter)
    assert stage.look().waiting_seconds - before.waiting_seconds == 7.0
    with pytest.raises(PoolTimeout):
        await timed_out
    found = between(before, stage.look(10.0))
    assert found.waiting_seconds == 7.0
    assert (found.arrivals, found.abandoned, found.timeouts, found.rejected) == (3, 2, 1, 1)
    assert found.mean_active == 2.0
    for holder in holders:
        stage.pool.release(holder.result(), reusable=True)
    await stage.close()


async def test_a_hand_over_to_a_caller_who_is_gone_is_a_lease_that_ended(stage: Stage) -> None:
    holders = [await stage.ask(), await stage.ask()]
    await stage.connect()
    unlucky = await stage.ask()
    stage.pool.release(holders[0].result(), reusable=True)
    unlucky.cancel()
    assert stage.look(2.0).busy_seconds == 4.0
    await stage.turn()
    flow = stage.look(5.0)
    assert (flow.acquired, flow.released, flow.abandoned) == (3, 2, 0)
    assert flow.busy_seconds == 4.0 + 5.0
    stage.pool.release(holders[1].result(), reusable=True)
    await stage.close()


async def test_callers_failed_together_have_waited_until_then(stage: Stage) -> None:
    callers = [await stage.ask(), await stage.ask()]
    stage.now += 4.0
    stage.server.goes()
    assert stage.look().waiting_seconds == 8.0
    await stage.turn()
    assert stage.look(1.0).waiting_seconds == 8.0
    assert [type(caller.exception()) for caller in callers] != [None, None]
    assert stage.look().abandoned == 2
    for attempt in list(stage.server.connecting):
        attempt.set_exception(ServerUnavailable("Away."))
    await stage.turn()
    await stage.close()


async def test_a_pool_opened_anew_begins_its_histograms_anew(stage: Stage) -> None:
    holder = await stage.ask()
    await stage.connect()
    stage.pool.release(holder.result(), reusable=True)
    before = stage.look(1.0)
    assert before.wait.count == before.hold.count == 1
    await stage.close()
    assert stage.look().wait.count == 0
    stage.now += 1.0
    stage.pool = stage.open(stage.acme.recorder)
    holder = await stage.ask()
    await stage.connect()
    found = between(before, stage.look(1.0))
    assert (found.wait.count, found.hold.count, found.acquired) == (1, 0, 1)
    stage.pool.release(holder.result(), reusable=True)
    await stage.close()


async def test_an_old_pool_that_closes_late_leaves_the_new_ones_flow_alone(stage: Stage) -> None:
    old = stage.pool
    stage.now += 1.0
    stage.pool = stage.open(stage.acme.recorder)
    await old.drain(0)
    holder = await stage.ask()
    await stage.connect()
    assert stage.look().wait.count == 1
    stage.pool.release(holder.result(), reusable=True)
    await stage.close()
