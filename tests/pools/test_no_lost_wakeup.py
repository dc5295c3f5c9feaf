"""Whatever happens to pools, in any order: nobody waits while a connection could serve them.

Pools, their queues and the budget are real. Connections are unreal, so that they open, fail and
close at every moment that hypothesis finds. Time stands still except for `pass_time`, so that a
failure can be repeated.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from operator import attrgetter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.domain.errors import ServerFull, TenantLoginFailed, Unavailable
from app.domain.pool import PoolConfig, PoolSize, PoolState
from app.domain.tenant import PoolStrategy
from app.pools.connection import PooledConnection
from app.pools.connector import Connector
from app.pools.pool import Pool
from app.pools.recorder import Recorder
from app.pools.scheduling.policy import lends
from app.pools.tenant_state import TenantState
from app.wire import Login
from tests.fixtures.pools import Nobody, account
from tests.fixtures.unreal import UnrealClock, UnrealConnection, UnrealLoop, UnrealServer

_NOBODY = Login(host="", port=0, user="", password="", database="")
_FAR = 1e9
LIMITS = st.sampled_from([0, 1, 2, 3, 4, 6, 10])
_FAILURES = (ServerFull, TenantLoginFailed)


class Caller:
    """A caller that asked a pool for a connection."""

    def __init__(self, pool: Pool, owner: TenantState) -> None:
        self.pool = pool
        self.account = owner
        self.task = asyncio.create_task(pool.acquire(owner, _FAR), name="caller")

    @property
    def waits(self) -> bool:
        return not self.task.done()

    @property
    def holds(self) -> PooledConnection | None:
        """The connection that it holds."""
        if self.waits or self.task.cancelled() or self.task.exception():
            return None
        return self.task.result()

    def give_back(self, *, reusable: bool = True) -> None:
        """Return what it holds."""
        self.pool.release(self.task.result(), reusable=reusable)


class PoolMachine(RuleBasedStateMachine):
    """Two pools of one tenant and a shared one of three, on one budget."""

    numbers = st.integers(0, 4)

    def __init__(self) -> None:
        super().__init__()
        self.clock = UnrealClock()
        self.loop = UnrealLoop(self.clock)
        self.patch = pytest.MonkeyPatch()
        for module in ("acquire_failures", "pool", "connections", "scheduling.wait_queue"):
            self.patch.setattr(f"app.pools.{module}.monotonic", self.clock.time)
        self.callers: list[Caller] = []

    @initialize(limit=LIMITS, warmup=st.integers(0, 1))
    def begin(self, limit: int, warmup: int) -> None:
        self.highest = limit
        self.server = UnrealServer(limit, self.clock)
        shared = PoolStrategy.SHARED
        self.accounts = [
            account("own"),
            account("heavy", weight=3),
            account("plain", strategy=shared),
            account("capped", strategy=shared, max_leases=1),
            account("light", strategy=shared, weight=2),
        ]
        self.pools = [self.pool(name, warmup) for name in ("own", "heavy", "shared")]
        for pool in self.pools:
            self.do(pool.open)

    def pool(self, name: str, warmup: int) -> Pool:
        return Pool(
            name,
            PoolSize(min_size=0, max_size=4, warmup_size=warmup),
            PoolConfig(strategy=PoolStrategy.PER_TENANT),
            connector=Connector(self.server.as_server(), lambda: _NOBODY),
            recorder=Recorder(),
            owner=Nobody(),
        )

    def pool_of(self, number: int) -> Pool:
        return self.pools[min(number, 2)]

    def do(self, act: Callable[[], object]) -> None:
        """Do something inside the event loop, which runs on for a moment only."""

        async def done() -> None:
            act()

        self.loop.run_until_complete(done())

    def teardown(self) -> None:
        if hasattr(self, "pools"):
            self.come_to_rest()
            self.do(lambda: [caller.task.cancel() for caller in self.callers])
            self.give_everything_back()
            drains = [self.loop.create_task(pool.drain(0)) for pool in self.pools]
            self.let_pass(lambda: all(drain.done() for drain in drains))
            assert self.server.budget.used == 0
        self.loop.close()
        self.patch.undo()

    # -- callers -----------------------------------------------------------------------------

    @rule(number=numbers, callers=st.integers(1, 4))
    def ask(self, number: int, callers: int) -> None:
        pool, owner = self.pool_of(number), self.accounts[number]
        for _ in range(callers):
            self.do(lambda: self.callers.append(Caller(pool, owner)))

    @rule(data=st.data(), reusable=st.booleans(), also_cancel=st.booleans())
    def give_back(self, data: st.DataObject, *, reusable: bool, also_cancel: bool) -> None:
        holding = [caller for caller in self.callers if caller.holds]
        if not holding:
            return
        caller = data.draw(st.sampled_from(holding))
        # Perhaps the caller that it is handed to leaves at the same moment.
        waiting = [other for other in self.callers if other.waits and other.pool is caller.pool]
        unlucky = waiting[0] if waiting and also_cancel else None
        self.callers.remove(caller)

        def act() -> None:
            caller.give_back(reusable=reusable)
            if unlucky:
                unlucky.task.cancel()

        self.do(act)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if waiting := [caller for caller in self.callers if caller.waits]:
            caller = data.draw(st.sampled_from(waiting))
            self.do(caller.task.cancel)

    # -- operations --------------------------------------------------------------------------

    @rule(number=numbers, least=st.integers(0, 2), more=st.integers(0, 3))
    def resize(self, number: int, least: int, more: int) -> None:
        size = PoolSize(min_size=least, max_size=max(1, least + more), warmup_size=0)
        self.do(lambda: self.pool_of(number).resize(size))

    @rule(
        number=numbers,
        what=st.sampled_from(["pause", "resume", "resume", "recycle", "sweep"]),
        also_cancel=st.booleans(),
    )
    def operate(self, number: int, what: str, *, also_cancel: bool) -> None:
        pool = self.pool_of(number)

        def act() -> None:
            pool.close_expired(_FAR) if what == "sweep" else getattr(pool, what)()
            if also_cancel:
                # What this has just started has not made its first step.
                self.cancel_tasks_of(pool)

        self.do(act)

    @rule(number=numbers)
    def cancel_tasks(self, number: int) -> None:
        self.do(partial(self.cancel_tasks_of, self.pool_of(number)))

    def cancel_tasks_of(self, pool: Pool) -> None:
        for task in pool.connections._tasks:
            task.cancel()

    @rule(limit=LIMITS)
    def change_budget(self, limit: int) -> None:
        self.highest = max(limit, self.server.budget.used)
        self.do(lambda: self.server.set_limit(limit))

    @rule(number=numbers, cap=st.none() | st.integers(1, 3))
    def change_cap(self, number: int, cap: int | None) -> None:
        owner = self.accounts[number]
        owner.tenant = replace(owner.tenant, spec=replace(owner.tenant.spec, max_leases=cap))
        self.do(self.pool_of(number).dispatch)

    # -- the server --------------------------------------------------------------------------

    @rule(data=st.data(), failure=st.sampled_from([None, None, None, *_FAILURES]))
    def connect(self, data: st.DataObject, failure: type[Unavailable] | None) -> None:
        if self.server.connecting:
            attempt = data.draw(st.sampled_from(range(len(self.server.connecting))))
            self.do(lambda: tell(self.server.connecting[attempt], failure))

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.server.closing:
            which = data.draw(st.sampled_from(range(len(self.server.closing))))
            self.do(lambda: tell(self.server.closing[which]))

    @rule(number=numbers, data=st.data())
    def break_off(self, number: int, data: st.DataObject) -> None:
        here = self.pool_of(number).connections
        raws: list[object] = [connection.raw for connection in (*here.idle, *here.leased)]
        alive = [raw for raw in raws if isinstance(raw, UnrealConnection) and not raw.closed]
        if alive:
            alive.sort(key=attrgetter("number"))
            self.do(data.draw(st.sampled_from(alive)).break_off)

    @rule(stays=st.booleans())
    def go_away(self, *, stays: bool) -> None:
        if self.server.is_available:
            self.do(self.server.goes)
        if not stays:
            self.do(self.server.comes_back)

    def retry(self, pool: Pool) -> None:
        """End the pause after a failed attempt."""
        if pool.backoff.is_pausing:
            self.do(pool.backoff.resume)

    @rule(seconds=st.sampled_from([0.1, 0.6, 1.5]))
    def pass_time(self, seconds: float) -> None:
        self.do(lambda: self.clock.let_pass(seconds))

    # -- rest, and what holds then -------------------------------------------------------------

    @rule(asked=numbers | st.none())
    def come_to_rest(self, asked: int | None = None) -> None:
        if asked is not None:
            self.ask(asked, 2)
        self.let_pass(self.rests)

    @rule()
    def come_to_rest_and_wait(self) -> None:
        for _ in range(20):
            self.let_pass(self.rests)
            self.pass_time(1.5)
            if self.rests():
                break
        for pool in self.pools:
            self.nobody_waits_in_vain(pool)

    def rests(self) -> bool:
        return not any(
            pool.backoff.is_pausing
            or pool.connections.connecting
            or pool.connections.closing
            or pool.connections.checking
            for pool in self.pools
        )

    @invariant()
    def at_rest_nobody_waits_in_vain(self) -> None:
        if not hasattr(self, "pools"):
            return
        self.let_callers_wake()
        if self.rests():
            for pool in self.pools:
                self.nobody_waits_in_vain(pool)
        self.accounts_are_right()

    def let_callers_wake(self) -> None:
        for _ in range(4):
            self.do(lambda: None)

    def let_pass(self, ended: Callable[[], bool]) -> None:
        """Let all running work end well, until nothing is left."""
        for _ in range(500):
            self.let_callers_wake()
            if ended():
                return
            for those in (self.server.connecting, self.server.closing):
                if those:
                    self.do(partial(tell, those[0]))
            for pool in self.pools:
                self.retry(pool)
        pytest.fail(f"no rest: {self.pools}")

    def give_everything_back(self) -> None:
        for _ in range(500):
            self.do(lambda: None)
            if not (holding := [caller for caller in self.callers if caller.holds]):
                return
            self.callers.remove(holding[0])
            self.do(holding[0].give_back)
        pytest.fail(f"callers are served without end: {self.pools}")

    def nobody_waits_in_vain(self, pool: Pool) -> None:
        own, budget = pool.connections, self.server.budget
        if pool.state is PoolState.PAUSED:
            assert not own.idle
        if not lends(pool) or not pool.waiters.servable or not self.server.is_available:
            return
        assert not own.idle, pool
        waiter = pool.waiters.next()
        patience = budget.connect_seconds + 0.01
        if own.leased and (waiter is None or self.clock.time() <= waiter.since + patience):
            # A running lease is expected to serve it sooner than a new connection could.
            return
        assert waiter is not None, pool
        if own.open < pool.size.max_size:
            # Time stands still while connections open and close: none is kept for its tenant.
            assert budget.limit - budget.used + self.spare() <= 0, self.pools

    def spare(self) -> int:
        """Idle connections that can be taken back."""
        return sum(
            min(len(pool.connections.idle), max(0, pool.connections.live - pool.size.min_size))
            for pool in self.pools
        )

    def accounts_are_right(self) -> None:
        for owner in self.accounts:
            own = [caller for caller in self.callers if caller.account is owner]
            assert owner.waiting == sum(caller.waits for caller in own)
            assert owner.leased == sum(caller.holds is not None for caller in own)

    @invariant()
    def what_is_open_was_taken_from_the_budget(self) -> None:
        if hasattr(self, "pools"):
            budget = self.server.budget
            assert budget.used == sum(pool.connections.open for pool in self.pools)
            assert budget.used <= self.highest
            known = {c.raw for pool in self.pools for c in places(pool)}
            if self.rests():
                assert self.server.open <= known, "in no pool, and not closed"
            self.highest = max(budget.limit, min(self.highest, budget.used))


def places(pool: Pool) -> Iterator[PooledConnection]:
    """Every working connection of *pool*."""
    yield from pool.connections.idle
    yield from pool.connections.leased
    yield from pool.connections.checking


def tell(future: asyncio.Future[None], failure: type[Unavailable] | None = None) -> None:
    """End an attempt or a closing."""
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure("As the test wants it."))


TestWhateverHappens = pytest.mark.long(PoolMachine.TestCase)
TestWhateverHappens.settings = settings(
    deadline=None, max_examples=150, stateful_step_count=40, print_blob=True
)
