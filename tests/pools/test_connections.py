"""Tasks of connections that are cancelled leave nothing behind, even before their first step."""

import asyncio
from dataclasses import dataclass
from time import monotonic

import pytest

from app.domain.pool import PoolConfig, PoolSize
from app.domain.tenant import PoolStrategy
from app.pools.connections import Connections
from app.pools.connector import Connector
from app.pools.pool import Pool
from app.pools.recorder import Recorder
from app.pools.smoothed import Smoothed
from app.wire import Login
from tests.fixtures.pools import Nobody, account
from tests.fixtures.unreal import UnrealConnection, UnrealServer
from tests.fixtures.waiting import eventually

_NOBODY = Login(host="", port=0, user="", password="", database="")


@dataclass(slots=True)
class Stage:
    """A pool on an unreal server; openings and closings wait for the test."""

    server: UnrealServer
    pool: Pool

    @property
    def connections(self) -> Connections:
        return self.pool.connections

    async def opens(self, count: int) -> None:
        """Let that many openings succeed."""
        for _ in range(count):
            await eventually(lambda: self.server.connecting)
            self.server.connecting[0].set_result(None)
            await asyncio.sleep(0)

    def cancel_tasks(self) -> None:
        for task in self.connections._tasks:
            task.cancel()

    @property
    def is_left_with_nothing(self) -> bool:
        own = self.connections
        return not (self.server.budget.used or own.open or own._tasks or self.server.open)


@pytest.fixture
async def stage() -> Stage:
    """A pool that is open and empty, with room for four connections."""
    server = UnrealServer(4)
    pool = Pool(
        "acme",
        PoolSize(min_size=0, max_size=4, warmup_size=0),
        PoolConfig(strategy=PoolStrategy.PER_TENANT),
        connector=Connector(server.as_server(), lambda: _NOBODY),
        recorder=Recorder(),
        owner=Nobody(),
    )
    pool.open()
    return Stage(server, pool)


async def idle(stage: Stage, count: int) -> None:
    """Give it that many idle connections."""
    owner = account()
    callers = [asyncio.create_task(stage.pool.acquire(owner, 5)) for _ in range(count)]
    await stage.opens(count)
    for connection in await asyncio.gather(*callers):
        stage.pool.release(connection, reusable=True)
    assert len(stage.connections.idle) == count


async def turns(count: int) -> None:
    """Let the event loop run that many rounds."""
    for _ in range(count):
        await asyncio.sleep(0)


# Before a task's first step, before each of its awaits, and when it waits for ever.
MOMENTS = range(6)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_closing_that_is_given_up_releases_its_place_once(
    stage: Stage, moment: int
) -> None:
    await idle(stage, 3)
    stage.pool.pause()
    assert (stage.connections.closing, stage.server.budget.used) == (3, 3)
    await turns(moment)
    stage.cancel_tasks()
    await stage.connections.settle(5)
    assert stage.is_left_with_nothing, stage.pool
    # Nobody saw the back-ends end, so the server counts them until somebody does.
    assert stage.server.unended == 3


@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_opening_that_is_given_up_releases_its_place_once(
    stage: Stage, moment: int
) -> None:
    stage.pool.resize(PoolSize(min_size=2, max_size=4, warmup_size=0))
    assert (stage.connections.connecting, stage.server.budget.used) == (2, 2)
    await turns(moment)
    stage.pool.pause()
    stage.cancel_tasks()
    await stage.connections.settle(5)
    assert stage.is_left_with_nothing, stage.pool


@pytest.mark.parametrize("moment", range(10))
async def test_what_opens_while_a_late_loop_gives_up_is_closed(stage: Stage, moment: int) -> None:
    stage.pool.resize(PoolSize(min_size=2, max_size=4, warmup_size=0))
    await eventually(lambda: len(stage.server.connecting) == 2)
    stage.pool.pause()
    for attempt in stage.server.connecting:
        attempt.set_result(None)
    await turns(moment)
    await stage.connections.settle(0)
    assert stage.is_left_with_nothing, stage.pool


async def test_what_ends_in_time_is_not_given_up(stage: Stage) -> None:
    await idle(stage, 2)
    stage.pool.pause()
    settling = asyncio.create_task(stage.connections.settle(60))
    await eventually(lambda: len(stage.server.closing) == 2)
    assert not settling.done()
    for closing in stage.server.closing:
        closing.set_result(None)
    await settling
    assert stage.is_left_with_nothing, stage.pool
    assert stage.server.unended == 0


async def test_a_check_that_breaks_closes_each_connection_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await idle(stage, 3)
    response = asyncio.get_running_loop().create_future()

    async def execute(connection: UnrealConnection, *_: object, **__: object) -> str:
        if connection.number == 1:
            raise LookupError
        await response
        return "SELECT 1"

    monkeypatch.setattr(UnrealConnection, "execute", execute)
    with pytest.raises(LookupError):
        await stage.connections.check(not_since=monotonic())
    response.set_result(None)
    await turns(3)
    assert (stage.connections.closing, stage.server.budget.used) == (3, 3)
    stage.cancel_tasks()
    await stage.connections.settle(5)
    assert stage.is_left_with_nothing, stage.pool


async def test_it_measures_now_and_then_when_a_caller_comes_back(stage: Stage) -> None:
    await idle(stage, 1)
    own, tenant, began = stage.connections, account(), monotonic() + 1.0
    stage.server.budget.note_connect(1.0)

    def lease(asked_at: float, seconds: float, wait: float = 0.0) -> None:
        connection = own.take_idle(asked_at)
        assert connection is not None
        own.lease(connection, tenant, None, wait, asked_at + wait)
        own.end_lease(connection, asked_at + wait + seconds)
        own.put_idle(connection)

    lease(began, 0.010)
    own.returns = Smoothed()
    lease(began + 0.030, 0.001)
    assert own.returns.mean == pytest.approx(0.020)
    # The next leases end before it is due again.
    for moment in (0.0315, 0.0320, 0.0325):
        lease(began + moment, 0.0001)
    assert own.returns.mean == pytest.approx(0.020)
    # Whoever asked before the last lease ended did not come back after it.
    lease(began + 0.060, 0.010)
    lease(began + 0.065, 0.010, wait=0.006)
    assert own.returns.mean == pytest.approx(0.020)
    lease(began + 0.181, 0.010)
    assert own.returns.mean == pytest.approx(0.020 + 0.080 / 8)


async def test_it_knows_how_long_leases_take(stage: Stage) -> None:
    await idle(stage, 1)
    own, tenant, began = stage.connections, account(), monotonic() + 1.0
    before = own.hold
    connection = own.take_idle(began)
    assert connection is not None
    own.lease(connection, tenant, None, 0.0, began)
    own.end_lease(connection, began + 8.0)
    own.put_idle(connection)
    assert own.hold == pytest.approx(before + (8.0 - before) / 8)
