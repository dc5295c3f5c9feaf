"""The queue: first come, first served within a tenant, by use between tenants."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from typing import ClassVar
from unittest.mock import sentinel

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.domain.errors import PoolTimeout
from app.pools.recorder import Recorder
from app.pools.scheduling.wait_queue import WaitQueue
from app.pools.scheduling.waiter import Waiter
from app.pools.tenant_state import TenantState
from tests.domain.values import account
from tests.fixtures.clock import Clock

FOR_EVER = 1e9


def refused(waiter: Waiter) -> None:
    """What a pool does with a caller whose deadline has passed."""
    waiter.fail(PoolTimeout())


Newcomer = Callable[[TenantState], Waiter]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WaitQueue:
    return WaitQueue(on_overdue=refused, clock=clock)


@pytest.fixture
def comes(queue: WaitQueue, loop: asyncio.AbstractEventLoop, clock: Clock) -> Newcomer:
    """Let a caller of a tenant come, each a moment after the one before."""

    def newcomer(caller: TenantState) -> Waiter:
        clock.now += 1e-6
        since = clock.now
        waiter = Waiter(caller, loop.create_future(), since=since, deadline=since + FOR_EVER)
        queue.add(waiter)
        return waiter

    return newcomer


def leases(tenant: TenantState, clock: Clock, count: int = 1) -> None:
    """Lend *tenant* that many connections."""
    for _ in range(count):
        tenant.lease_begun(0.0, clock.now)


def used(tenant: TenantState, clock: Clock, seconds: float) -> None:
    """Let *tenant* have had a connection for that many *seconds*."""
    tenant.lease_begun(0.0, clock.now)
    clock.now += seconds
    tenant.lease_ended(seconds, clock.now)


def served(queue: WaitQueue) -> Waiter | None:
    """Serve the next caller, who keeps its connection."""
    waiter = queue.next()
    if waiter is not None:
        queue.remove(waiter)
        waiter.tenant_state.lease_begun(0.0, queue._clock())
        waiter.future.set_result(sentinel.connection)
    return waiter


def all_served(queue: WaitQueue) -> list[Waiter]:
    return list(iter(lambda: served(queue), None))


def changed(tenant: TenantState, *, weight: int | None = None, cap: int | None = None) -> None:
    """Give *tenant* another weight or cap."""
    spec = tenant.tenant.spec
    spec = replace(spec, weight=weight or spec.weight, max_leases=cap or spec.max_leases)
    tenant.update(replace(tenant.tenant, spec=spec))


def test_nobody_is_next_when_nobody_waits(queue: WaitQueue) -> None:
    assert queue.next() is None
    assert (queue.count, queue.servable) == (0, 0)


def test_within_a_tenant_the_first_to_come_is_the_first_served(
    queue: WaitQueue, comes: Newcomer
) -> None:
    acme = account()
    waiters = [comes(acme) for _ in range(5)]
    assert all_served(queue) == waiters
    assert acme.waiting == 0


def test_looking_at_the_next_takes_nobody_out(queue: WaitQueue, comes: Newcomer) -> None:
    first = comes(account())
    assert queue.next() is queue.next() is first
    assert queue.count == 1


def test_between_tenants_the_one_that_holds_less_is_next(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    noisy, quiet = account("noisy"), account("quiet")
    leases(noisy, clock, 3)
    for _ in range(5):
        comes(noisy)
    late = comes(quiet)
    assert served(queue) is late


def test_between_tenants_that_hold_nothing_the_one_that_used_less_is_next(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    often, seldom = account("often"), account("seldom")
    used(often, clock, 0.5)
    used(seldom, clock, 0.1)
    first, late = comes(often), comes(seldom)
    assert all_served(queue) == [late, first]


def test_who_holds_a_connection_for_long_falls_behind_while_it_does(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    holder, busy = account("holder"), account("busy")
    used(busy, clock, 20)
    leases(holder, clock)
    mine, theirs = comes(holder), comes(busy)
    assert queue.next() is mine
    clock.now += 60
    assert queue.next() is theirs


def test_a_tie_goes_to_whoever_waits_longest(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    one, other = account("one"), account("other")
    waiters = [comes(one), comes(other), comes(other), comes(one)]
    clock.now = waiters[0].since
    assert all_served(queue) == waiters


def test_a_caller_that_gave_up_is_not_next_however_often_somebody_looks(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    used(busy := account("busy"), clock, 1.0)
    fresh = account("fresh")
    gone, other = comes(fresh), comes(busy)
    assert queue.servable == 2
    gone.future.cancel()
    assert queue.next() is other
    assert queue.next() is other


def test_a_tenant_that_reached_its_cap_is_passed_over_until_it_gives_back(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    capped = account("capped", max_leases=1)
    waiter, late = comes(capped), comes(account("late"))
    assert queue.next() is waiter
    leases(capped, clock)
    assert served(queue) is late
    assert queue.next() is None
    capped.lease_ended(0.0, clock.now)
    assert queue.next() is waiter


@pytest.mark.parametrize(
    ("heavy", "light", "split"), [(3, 1, (6, 2)), (1, 1, (4, 4)), (7, 1, (7, 1)), (2, 6, (2, 6))]
)
def test_connections_are_divided_by_weight(
    queue: WaitQueue, comes: Newcomer, heavy: int, light: int, split: tuple[int, int]
) -> None:
    one, other = account("one", weight=heavy), account("other", weight=light)
    for _ in range(8):
        comes(one)
        comes(other)
    holders = Counter(waiter.tenant_state for _ in range(8) if (waiter := served(queue)))
    assert (holders[one], holders[other]) == split


def test_a_changed_weight_counts_for_those_who_wait_already(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    one, other = account("one"), account("other")
    used(one, clock, 2.0)
    used(other, clock, 1.0)
    mine, theirs = comes(one), comes(other)
    assert queue.next() is theirs
    changed(one, weight=4)
    assert queue.next() is mine
    changed(one, weight=1)
    assert queue.next() is theirs


def test_a_tenant_at_its_own_cap_is_passed_over(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    capped, free = account("capped", max_leases=1), account("free")
    waiters = [comes(capped), comes(capped), comes(free), comes(free), comes(free)]
    clock.now = waiters[0].since
    assert queue.servable == 4
    assert all_served(queue) == [waiters[0], waiters[2], waiters[3], waiters[4]]
    assert (queue.count, queue.servable, capped.waiting) == (1, 0, 1)
    capped.lease_ended(0.0, clock.now)
    assert queue.servable == 1
    assert served(queue) is waiters[1]


def test_a_cap_that_changes_counts_for_those_who_wait_already(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    capped = account(max_leases=5)
    leases(capped, clock, 5)
    waiter = comes(capped)
    assert (queue.servable, queue.next()) == (0, None)
    changed(capped, cap=2)
    assert (queue.servable, queue.next()) == (0, None)
    changed(capped, cap=6)
    assert (queue.servable, queue.next()) == (1, waiter)


def test_whoever_gave_up_is_skipped(queue: WaitQueue, comes: Newcomer) -> None:
    acme = account()
    gone, failed, last = comes(acme), comes(acme), comes(acme)
    gone.future.cancel()
    failed.fail(PoolTimeout())
    assert queue.next() is last
    assert (queue.count, set(queue)) == (3, {gone, failed, last})
    queue.remove(last)
    assert queue.next() is None
    assert isinstance(failed.future.exception(), PoolTimeout)


def test_a_tenant_whose_callers_all_gave_up_stands_in_nobodys_way(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    used(other := account("other"), clock, 1.0)
    gone, late = comes(account("gone")), comes(other)
    assert queue.next() is gone
    gone.future.cancel()
    assert queue.next() is late
    queue.remove(gone)
    assert (queue.count, queue.servable, queue.next()) == (1, 1, late)


def test_taking_a_waiter_out_twice_is_taking_it_out_once(queue: WaitQueue, comes: Newcomer) -> None:
    acme = account()
    first, second = comes(acme), comes(acme)
    queue.remove(first)
    queue.remove(first)
    assert (queue.count, acme.waiting, queue.next()) == (1, 1, second)
    queue.remove(second)
    queue.remove(second)
    assert (queue.count, acme.waiting, queue.next()) == (0, 0, None)


def test_everybody_can_be_taken_out_at_once(queue: WaitQueue, comes: Newcomer) -> None:
    one, other = account("one"), account("other")
    waiters = [comes(one), comes(other), comes(one)]
    assert Counter(queue.clear()) == Counter(waiters)
    assert (queue.count, one.waiting, other.waiting, queue.next()) == (0, 0, 0, None)


def test_those_of_one_tenant_can_be_taken_out(queue: WaitQueue, comes: Newcomer) -> None:
    one, other = account("one"), account("other")
    gone, mine, theirs = comes(one), comes(one), comes(other)
    assert queue.next() is gone
    gone.future.cancel()
    assert queue.next() is mine
    assert Counter(queue.remove_tenant(one)) == Counter([gone, mine])
    assert queue.remove_tenant(one) == []
    assert (queue.count, one.waiting, queue.servable) == (1, 0, 1)
    assert served(queue) is theirs


def test_all_together_have_waited_since_each_came(queue: WaitQueue, comes: Newcomer) -> None:
    waiters = [comes(account(str(number % 3))) for number in range(9)]
    queue.remove(waiters[4])
    now = waiters[-1].since + 10
    rest = [each for each in waiters if each is not waiters[4]]
    assert queue.waiting_seconds(now) == pytest.approx(sum(now - each.since for each in rest))
    queue.clear()
    assert queue.waiting_seconds(now) == 0


def test_a_waiter_knows_what_it_was_handed(comes: Newcomer) -> None:
    acme = account()
    waiting, cancelled, failed, lucky = (comes(acme) for _ in range(4))
    cancelled.future.cancel()
    failed.fail(PoolTimeout())
    lucky.future.set_result(sentinel.connection)
    assert (waiting.handed, cancelled.handed, failed.handed) == (None, None, None)
    assert lucky.handed is sentinel.connection


def test_whoever_was_served_or_gave_up_cannot_fail_any_more(comes: Newcomer) -> None:
    acme = account()
    lucky, cancelled = comes(acme), comes(acme)
    lucky.future.set_result(sentinel.connection)
    cancelled.future.cancel()
    lucky.fail(PoolTimeout())
    cancelled.fail(PoolTimeout())
    assert lucky.handed is sentinel.connection
    assert cancelled.future.cancelled()


class WaitQueueMachine(RuleBasedStateMachine):
    """Every sequence of events, against a list of waiters that is searched each time."""

    tenants = st.integers(0, 4)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.loop = asyncio.new_event_loop()
        self.loop.time = self.clock  # type: ignore[method-assign]
        self.queue = WaitQueue(on_overdue=self.time_out, clock=self.clock)
        self.accounts = [
            account("plain"),
            account("other"),
            account("heavy", weight=3),
            account("capped", max_leases=1),
            account("heavy-capped", weight=5, max_leases=2),
        ]
        self.waiting: list[Waiter] = []
        self.gone: list[Waiter] = []
        self.overdue: list[float] = []

    def teardown(self) -> None:
        self.queue.clear()
        self.loop.close()

    # -- what follows from the list ------------------------------------------------------------

    def callers(self, tenant: TenantState) -> list[Waiter]:
        return [waiter for waiter in self.waiting if waiter.tenant_state is tenant]

    def next(self) -> Waiter | None:
        return min(
            (waiter for waiter in self.waiting if waiter.tenant_state.can_lease),
            key=lambda waiter: (waiter.tenant_state.key(self.clock.now), waiter.since),
            default=None,
        )

    def time_out(self, waiter: Waiter) -> None:
        assert waiter in self.waiting
        self.waiting.remove(waiter)
        self.overdue.append(waiter.deadline)
        self.queue.remove(waiter)
        waiter.fail(PoolTimeout())

    def hand(self, waiter: Waiter | None) -> None:
        if waiter is not None:
            self.waiting.remove(waiter)
            self.queue.remove(waiter)
            waiter.tenant_state.lease_begun(0.0, self.clock.now)
            waiter.future.set_result(sentinel.connection)

    # -- what happens --------------------------------------------------------------------------

    @rule(tenant=tenants, patience=st.floats(0.2, 20))
    def come(self, tenant: int, patience: float) -> None:
        self.clock.now += 1e-3
        since = self.clock.now
        waiter = Waiter(
            self.accounts[tenant],
            self.loop.create_future(),
            since=since,
            deadline=since + patience,
        )
        self.waiting.append(waiter)
        self.queue.add(waiter)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.waiting:
            waiter = data.draw(st.sampled_from(self.waiting))
            waiter.future.cancel()
            self.waiting.remove(waiter)
            self.gone.append(waiter)

    @rule(data=st.data())
    def be_taken_out(self, data: st.DataObject) -> None:
        if self.gone:
            waiter = data.draw(st.sampled_from(self.gone))
            self.gone.remove(waiter)
            self.queue.remove(waiter)

    @rule()
    def serve(self) -> None:
        expected = self.next()
        assert self.queue.next() is expected
        self.hand(expected)

    @rule(tenant=tenants)
    def release(self, tenant: int) -> None:
        if self.accounts[tenant].leased:
            self.accounts[tenant].lease_ended(0.0, self.clock.now)

    @rule(tenant=tenants, weight=st.integers(1, 9), cap=st.integers(1, 3))
    def change(self, tenant: int, weight: int, cap: int) -> None:
        changed(self.accounts[tenant], weight=weight, cap=cap if tenant > 2 else None)

    @rule(seconds=st.floats(0.001, 5))
    def let_pass(self, seconds: float) -> None:
        self.overdue.clear()
        self.clock.now += seconds
        # Nobody fails right after a standstill, so a moment passes twice.
        for _ in range(3):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            self.clock.now += 0.06
        assert self.overdue == sorted(self.overdue)
        assert all(waiter.deadline > self.clock.now - 0.2 for waiter in self.waiting)
        assert all(deadline < self.clock.now for deadline in self.overdue)

    @rule(tenant=tenants)
    def be_deleted(self, tenant: int) -> None:
        taken = self.queue.remove_tenant(self.accounts[tenant])
        assert set(self.callers(self.accounts[tenant])) <= set(taken)
        assert len(taken) == len(set(taken))
        assert set(taken) <= set(self.waiting + self.gone)
        for waiter in taken:
            waiter.fail(PoolTimeout())
        self.waiting = [waiter for waiter in self.waiting if waiter not in taken]

    @rule()
    def clear(self) -> None:
        taken = self.queue.clear()
        assert len(taken) == len(set(taken))
        assert set(self.waiting) <= set(taken) <= set(self.waiting + self.gone)
        self.waiting.clear()

    # -- what always holds ---------------------------------------------------------------------

    @invariant()
    def a_look_shows_who_is_next(self) -> None:
        assert self.queue.next() is self.next()

    @invariant()
    def the_counts_add_up(self) -> None:
        everybody = list(self.queue)
        assert self.queue.count == len(everybody) == sum(each.waiting for each in self.accounts)
        assert set(self.waiting) <= set(everybody) <= set(self.waiting + self.gone)
        now = self.clock.now
        seconds = sum(now - waiter.since for waiter in everybody)
        assert self.queue.waiting_seconds(now) == pytest.approx(seconds, abs=1e-6)

    @invariant()
    def servable_are_as_many_as_the_caps_allow(self) -> None:
        caps = {each: each.tenant.spec.max_leases for each in self.accounts}
        assert self.queue.servable == sum(
            each.waiting if cap is None else min(each.waiting, max(0, cap - each.leased))
            for each, cap in caps.items()
        )


TestAnySequenceOfEvents = WaitQueueMachine.TestCase
TestAnySequenceOfEvents.settings = settings(
    deadline=None, max_examples=150, stateful_step_count=40, print_blob=True
)


def closed_loops(
    queue: WaitQueue,
    comes: Newcomer,
    clock: Clock,
    holds: dict[TenantState, float],
    *,
    clients: int = 1,
    seconds: float = 10.0,
    connections: int = 20,
) -> dict[TenantState, float]:
    """Let the tenants' clients lease again and again; returns the connection-seconds of each."""
    got = dict.fromkeys(holds, 0.0)
    running: list[tuple[float, int, TenantState]] = []
    for tenant in holds:
        for _ in range(clients):
            comes(tenant)
    ends, number = clock.now + seconds, 0
    while clock.now < ends:
        while len(running) < connections and (waiter := served(queue)) is not None:
            tenant, number = waiter.tenant_state, number + 1
            heappush(running, (clock.now + holds[tenant], number, tenant))
        until, _, tenant = heappop(running)
        clock.now = max(until, clock.now)
        tenant.lease_ended(holds[tenant], clock.now)
        got[tenant] += holds[tenant]
        comes(tenant)
    return got


def test_connection_seconds_are_divided_evenly_however_long_each_lease_takes(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    holds = {account(str(number)): 0.005 * (1 + number % 10) for number in range(100)}
    got = list(closed_loops(queue, comes, clock, holds).values())
    assert sum(got) == pytest.approx(20 * 10, rel=0.01)
    assert sum(got) ** 2 / len(got) / sum(each**2 for each in got) > 0.99


@pytest.mark.parametrize("clients", [1, 4])
def test_connection_seconds_are_divided_by_weight(
    queue: WaitQueue, comes: Newcomer, clock: Clock, clients: int
) -> None:
    light = {account(f"light{number}"): 0.02 for number in range(50)}
    heavy = {account(f"heavy{number}", weight=3): 0.02 for number in range(50)}
    got = closed_loops(queue, comes, clock, light | heavy, clients=clients)
    shares = [sum(got[tenant] for tenant in those) for those in (light, heavy)]
    assert shares[1] / shares[0] == pytest.approx(3, rel=0.05)


def test_those_who_ask_seldom_go_before_a_flood(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    closed_loops(queue, comes, clock, {account("flood"): 0.005}, clients=200, seconds=2)
    light = [comes(account(f"light{number}")) for number in range(30)]
    assert [served(queue) for _ in light] == light


def test_who_was_away_cannot_take_all_connections_at_once(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    busy = {account(str(number)): 0.05 for number in range(20)}
    closed_loops(queue, comes, clock, busy, clients=2, seconds=60)
    back = account("back")
    for _ in range(100):
        comes(back)
    holders = Counter(waiter.tenant_state for _ in range(20) if (waiter := served(queue)))
    assert 1 <= holders[back] <= 5
    assert queue.next() is not None


class WatchedTenant(TenantState):
    """A tenant that notes when the queue looks at it."""

    looked_at: ClassVar[set[TenantState]] = set()

    def key(self, now: float, *, more: int = 0) -> float:
        self.looked_at.add(self)
        return super().key(now, more=more)

    @property
    def can_lease(self) -> bool:
        self.looked_at.add(self)
        return super().can_lease


MANY = 5000


@pytest.fixture
def crowd(comes: Newcomer) -> list[TenantState]:
    """That many tenants, each with a caller that waits; some have a cap, and weights differ."""
    tenants: list[TenantState] = [
        WatchedTenant(
            account(
                str(number), weight=1 + number % 3, max_leases=None if number % 2 else 1
            ).tenant,
            Recorder(),
        )
        for number in range(MANY)
    ]
    for tenant in tenants:
        comes(tenant)
    return tenants


def test_an_event_looks_at_few_tenants_however_many_wait(
    queue: WaitQueue, comes: Newcomer, crowd: list[TenantState], clock: Clock
) -> None:
    assert queue.servable == MANY
    looked_at = WatchedTenant.looked_at
    holders: list[TenantState] = []
    looks = []
    for _ in range(2 * MANY):
        looked_at.clear()
        clock.now += 1e-4
        if len(holders) == 20:
            holder = holders.pop(0)
            holder.lease_ended(2e-3, clock.now)
            comes(holder)
        waiter = served(queue)
        assert waiter is not None
        holders.append(waiter.tenant_state)
        assert queue.servable <= queue.count
        looks.append(len(looked_at))
    assert max(looks) <= 20 + 10
    assert sum(looks) / len(looks) <= 10
    assert len(queue._order._heap) <= 2 * MANY + 100
    assert len(queue._deadlines._heap) <= 2 * MANY + 100


def test_nothing_is_kept_of_tenants_that_no_longer_wait(
    queue: WaitQueue, comes: Newcomer, clock: Clock
) -> None:
    for number in range(100):
        waiter = comes(account(f"tenant-{number}"))
        assert served(queue) is waiter
    assert not queue._lines
    assert not queue._stale


def test_a_deadline_looks_at_few_tenants_however_many_wait(
    queue: WaitQueue, crowd: list[TenantState], loop: asyncio.AbstractEventLoop, clock: Clock
) -> None:
    queue.next()
    hasty = account("hasty")
    loop.time = clock  # type: ignore[method-assign]
    for number in range(10):
        deadline = clock.now + 0.01 * number + 0.005
        queue.add(Waiter(hasty, loop.create_future(), since=clock.now, deadline=deadline))
    WatchedTenant.looked_at.clear()
    for number in range(10):
        clock.now += 0.01
        loop.call_soon(loop.stop)
        loop.run_forever()
        failed = [waiter for waiter in queue if waiter.future.done()]
        assert len(failed) == number + 1
        for waiter in failed:
            assert isinstance(waiter.future.exception(), PoolTimeout)
    assert not WatchedTenant.looked_at


def test_after_a_standstill_of_the_loop_what_came_back_meanwhile_may_serve_callers(
    queue: WaitQueue, loop: asyncio.AbstractEventLoop, clock: Clock
) -> None:
    loop.time = clock  # type: ignore[method-assign]
    deadline = clock.now + 1
    served_late, overdue = (
        Waiter(account(), loop.create_future(), since=clock.now, deadline=deadline)
        for _ in range(2)
    )
    queue.add(served_late)
    queue.add(overdue)
    clock.now += 10
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert not overdue.future.done()
    assert served(queue) is served_late
    clock.now += 0.06
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert isinstance(overdue.future.exception(), PoolTimeout)
    assert served_late.handed is sentinel.connection


async def test_callers_fail_at_their_own_deadline_whoever_came_first() -> None:
    queue = WaitQueue(on_overdue=refused)
    loop = asyncio.get_running_loop()
    now = loop.time()
    patient, hasty = (
        Waiter(account(), loop.create_future(), since=now, deadline=now + seconds)
        for seconds in (FOR_EVER, 0.01)
    )
    queue.add(patient)
    queue.add(hasty)
    with pytest.raises(PoolTimeout):
        await asyncio.wait_for(hasty.future, 60)
    assert not patient.future.done()
    queue.clear()


async def test_a_caller_whose_deadline_has_passed_fails_at_once() -> None:
    queue = WaitQueue(on_overdue=refused)
    loop = asyncio.get_running_loop()
    now = loop.time()
    late, later = (
        Waiter(account(), loop.create_future(), since=now, deadline=now - seconds)
        for seconds in (0.02, 0.01)
    )
    queue.add(later)
    queue.add(late)
    for waiter in (late, later):
        with pytest.raises(PoolTimeout):
            await asyncio.wait_for(waiter.future, 60)
