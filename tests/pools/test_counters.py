"""A pool's readings: integrals compared with a schedule calculated by hand."""

import asyncio

import pytest

from app.domain.counters import CounterReading
from app.domain.errors import PoolSaturated, PoolTimeout, ServerUnavailable
from app.domain.pool import PoolConfig, PoolSize
from app.domain.tenant import PoolStrategy
from app.pools.connection import PooledConnection
from app.pools.connector import Connector
from app.pools.pool import Pool
from app.pools.recorder import Recorder
from app.pools.tenant_state import TenantState
from app.wire import Login
from tests.fixtures.pools import Nobody, account
from tests.fixtures.unreal import UnrealClock, UnrealServer

_NOBODY = Login(host="", port=0, user="", password="", database="")
_DEADLINE = 1e6


class Stage:
    """A pool of two unreal connections, and a clock that stands still until a test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = UnrealClock()
        for module in ("connections", "acquire_failures", "pool"):
            monkeypatch.setattr(f"app.pools.{module}.monotonic", self.clock.time)
        self.server = UnrealServer(10, self.clock)
        self.acme = account()
        self.pool = self.open(self.acme.recorder)

    def open(self, recorder: Recorder) -> Pool:
        pool = Pool(
            "acme",
            PoolSize(max_size=2, warmup_size=0),
            PoolConfig(strategy=PoolStrategy.PER_TENANT, max_waiting=2),
            connector=Connector(self.server.as_server(), lambda: _NOBODY),
            recorder=recorder,
            owner=Nobody(),
        )
        pool.open()
        return pool

    async def connect(self) -> None:
        """Let the running attempts succeed, and those who wait for them go on."""
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

    def read(self, seconds: float = 0.0) -> CounterReading:
        """Let *seconds* pass, then read."""
        self.clock.now += seconds
        return self.pool.reading(self.clock.now)

    async def close(self) -> None:
        drain = asyncio.create_task(self.pool.drain(0), name="drain")
        while not drain.done():
            await self.turn()
            for closing in list(self.server.closing):
                closing.set_result(None)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def integrals(reading: CounterReading) -> tuple[float, float, float]:
    return (reading.busy_seconds, reading.waiting_seconds, reading.open_seconds)


async def test_integrals_are_exact_at_every_reading(stage: Stage) -> None:
    first = await stage.ask()
    second = await stage.ask()
    assert integrals(stage.read(1.0)) == (0.0, 2.0, 0.0)
    await stage.connect()
    third = await stage.ask()
    assert integrals(stage.read(2.0)) == (4.0, 4.0, 4.0)
    stage.pool.release(first.result(), reusable=True)
    # Handed over at this very moment, although the third caller has not run yet.
    before = stage.read()
    assert integrals(before) == (4.0, 4.0, 4.0)
    assert before.counters[:2] == (3, 1)
    assert before.waiting == 0
    await stage.turn()
    assert integrals(stage.read(0.5)) == (5.0, 4.0, 5.0)
    stage.pool.release(second.result(), reusable=True)
    stage.pool.release(third.result(), reusable=False)
    after = stage.read(8.0)
    assert integrals(after) == (5.0, 4.0, 13.0)
    assert after.at - before.at == 8.5
    grown = after.counters - before.counters
    assert (grown.connections_acquired, grown.connections_released) == (0, 2)
    assert after.arrivals == before.arrivals
    assert (after.wait - before.wait).count == 0
    assert (after.hold - before.hold).count == 2
    await stage.close()
    assert integrals(stage.read()) == (5.0, 4.0, 13.0)


async def test_how_long_connects_took_counts_when_they_end(stage: Stage) -> None:
    first, second = await stage.ask(), await stage.ask()
    before = stage.read(3.0)
    await stage.connect()
    after = stage.read(1.0)
    grown = after.counters - before.counters
    assert (grown.connections_opened, grown.connect_seconds) == (2, 6.0)
    assert (stage.read(1.0).counters - after.counters).connections_opened == 0
    for holder in (first, second):
        stage.pool.release(holder.result(), reusable=True)
    await stage.close()


async def test_abandoned_waits_count_until_they_end_and_as_arrivals(stage: Stage) -> None:
    holders = [await stage.ask(), await stage.ask()]
    await stage.connect()
    before = stage.read()
    cancelled, timed_out = await stage.ask(), await stage.ask()
    with pytest.raises(PoolSaturated):
        await stage.pool.acquire(stage.acme, _DEADLINE)
    assert stage.read(3.0).waiting_seconds - before.waiting_seconds == 6.0
    cancelled.cancel()
    assert stage.read().waiting_seconds - before.waiting_seconds == 6.0
    await stage.turn()
    assert stage.read(1.0).waiting_seconds - before.waiting_seconds == 7.0
    [waiter] = stage.pool.waiters
    stage.pool._failures.time_out(waiter)
    assert stage.read().waiting_seconds - before.waiting_seconds == 7.0
    with pytest.raises(PoolTimeout):
        await timed_out
    after = stage.read(10.0)
    grown = after.counters - before.counters
    assert after.waiting_seconds - before.waiting_seconds == grown.abandoned_seconds == 7.0
    assert (grown.abandoned, grown.timeouts, grown.rejected) == (2, 1, 1)
    assert after.arrivals - before.arrivals == 3
    assert after.busy_seconds - before.busy_seconds == 2.0 * (after.at - before.at)
    for holder in holders:
        stage.pool.release(holder.result(), reusable=True)
    await stage.close()


async def test_a_hand_over_to_a_caller_who_is_gone_is_a_lease_that_ended(stage: Stage) -> None:
    holders = [await stage.ask(), await stage.ask()]
    await stage.connect()
    unlucky = await stage.ask()
    stage.pool.release(holders[0].result(), reusable=True)
    unlucky.cancel()
    assert stage.read(2.0).busy_seconds == 4.0
    await stage.turn()
    reading = stage.read(5.0)
    assert reading.counters[:3] == (3, 2, 0)
    assert reading.busy_seconds == 4.0 + 5.0
    stage.pool.release(holders[1].result(), reusable=True)
    await stage.close()


async def test_callers_failed_together_have_waited_until_then(stage: Stage) -> None:
    callers = [await stage.ask(), await stage.ask()]
    stage.clock.now += 4.0
    stage.server.goes()
    assert stage.read().waiting_seconds == 8.0
    await stage.turn()
    assert stage.read(1.0).waiting_seconds == 8.0
    assert [type(caller.exception()) for caller in callers] != [None, None]
    assert stage.read().counters.abandoned == 2
    for attempt in list(stage.server.connecting):
        attempt.set_exception(ServerUnavailable("Away."))
    await stage.turn()
    await stage.close()


async def test_a_pool_that_opens_again_starts_new_histograms(stage: Stage) -> None:
    holder = await stage.ask()
    await stage.connect()
    stage.pool.release(holder.result(), reusable=True)
    before = stage.read(1.0)
    assert before.wait.count == before.hold.count == 1
    await stage.close()
    assert stage.read().wait.count == 0
    stage.clock.now += 1.0
    stage.pool = stage.open(stage.acme.recorder)
    holder = await stage.ask()
    await stage.connect()
    after = stage.read(1.0)
    assert (after.wait.count, after.hold.count) == (1, 0)
    assert after.counters.connections_acquired == before.counters.connections_acquired + 1
    stage.pool.release(holder.result(), reusable=True)
    await stage.close()


async def test_an_old_pool_that_closes_late_leaves_the_new_ones_histograms_alone(
    stage: Stage,
) -> None:
    old = stage.pool
    stage.clock.now += 1.0
    stage.pool = stage.open(stage.acme.recorder)
    await old.drain(0)
    holder = await stage.ask()
    await stage.connect()
    assert stage.read().wait.count == 1
    stage.pool.release(holder.result(), reusable=True)
    await stage.close()
