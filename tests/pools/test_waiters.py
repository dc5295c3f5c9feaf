"""The queue: first come, first served within a tenant, by share between tenants."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast
from unittest.mock import sentinel

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.domain.errors import PoolTimeout
from app.pools.connection import PooledConnection
from app.pools.tenant_state import TenantState
from app.pools.waiters import Waiter, WaitQueue
from tests.domain.values import account

FOR_EVER = 1e9


def refused(waiter: Waiter) -> None:
    """What a pool does with a caller whose deadline has come."""
    waiter.fail(PoolTimeout())


def a_connection() -> PooledConnection:
    """One that is about to come back."""
    return cast("PooledConnection", object())


Newcomer = Callable[[TenantState], Waiter]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def queue() -> WaitQueue:
    return WaitQueue(on_overdue=refused)


@pytest.fixture
def comes(queue: WaitQueue, loop: asyncio.AbstractEventLoop) -> Newcomer:
    """Let a caller of a tenant come, each a second after the one before."""
    arrivals = iter(range(1000))

    def newcomer(caller: TenantState) -> Waiter:
        since = float(next(arrivals))
        waiter = Waiter(caller, loop.create_future(), since=since, deadline=since + FOR_EVER)
        queue.add(waiter)
        return waiter

    return newcomer


def served(queue: WaitQueue) -> Waiter | None:
    """Serve the next caller, who keeps what it got."""
    waiter = queue.next()
    if waiter is not None:
        queue.remove(waiter)
        waiter.tenant_state.leased += 1
        waiter.future.set_result(sentinel.connection)
    return waiter


def all_served(queue: WaitQueue) -> list[Waiter]:
    return list(iter(lambda: served(queue), None))


def all_served_at_once(queue: WaitQueue) -> Iterator[Waiter]:
    while (waiter := served(queue)) is not None:
        yield waiter


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


def test_between_tenants_the_one_that_holds_less_is_next(queue: WaitQueue, comes: Newcomer) -> None:
    noisy, quiet = account("noisy"), account("quiet")
    noisy.leased = 3
    for _ in range(5):
        comes(noisy)
    late = comes(quiet)
    assert served(queue) is late


def test_a_tie_goes_to_whoever_waits_longest(queue: WaitQueue, comes: Newcomer) -> None:
    one, other = account("one"), account("other")
    waiters = [comes(one), comes(other), comes(other), comes(one)]
    assert all_served(queue) == waiters


def test_as_long_as_nothing_changes_those_expected_are_served_in_that_order(
    queue: WaitQueue, comes: Newcomer
) -> None:
    accounts = [account("one"), account("heavy", weight=3), account("other")]
    for number in range(12):
        comes(accounts[number % 3])
    accounts[0].leased = 1
    expected = list(iter(lambda: queue.expect(a_connection(), accounts[0]), None))
    assert len(expected) == 12
    accounts[0].leased = 0
    assert all_served(queue) == expected


def test_a_tenant_at_its_own_cap_is_not_expected(queue: WaitQueue, comes: Newcomer) -> None:
    capped, other = account("capped", max_leases=1), account("other")
    capped.leased = other.leased = 1
    waiter = comes(capped)
    assert queue.expect(a_connection(), other) is None
    assert queue.expect(a_connection(), capped) is waiter
    assert (capped.leased, other.leased) == (1, 1)


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


def test_a_tenant_at_its_own_cap_is_passed_over(queue: WaitQueue, comes: Newcomer) -> None:
    capped, free = account("capped", max_leases=1), account("free")
    waiters = [comes(capped), comes(capped), comes(free), comes(free), comes(free)]
    assert queue.servable == 4
    assert all_served(queue) == [waiters[0], waiters[2], waiters[3], waiters[4]]
    assert (queue.count, queue.servable, capped.waiting) == (1, 0, 1)
    capped.leased -= 1
    assert served(queue) is waiters[1]


def test_a_cap_lowered_below_what_is_held_makes_nobody_servable(
    queue: WaitQueue, comes: Newcomer
) -> None:
    capped = account(max_leases=2)
    capped.leased = 5
    comes(capped)
    assert (queue.servable, queue.next()) == (0, None)


def test_whoever_gave_up_is_skipped(queue: WaitQueue, comes: Newcomer) -> None:
    acme = account()
    gone, failed, last = comes(acme), comes(acme), comes(acme)
    gone.future.cancel()
    failed.fail(PoolTimeout())
    assert queue.next() is last
    queue.remove(last)
    assert queue.next() is None
    assert isinstance(failed.future.exception(), PoolTimeout)


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


def test_shares_are_foretold_as_they_will_come(queue: WaitQueue, comes: Newcomer) -> None:
    callers = [
        account("plain"),
        account("heavy", weight=3),
        account("capped", max_leases=2),
        account("full", max_leases=1),
    ]
    callers[0].leased = callers[3].leased = 1
    for caller in callers * 4:
        comes(caller)
    foretold = [queue.share_after(number) for number in range(12)]
    came = [waiter.tenant_state.share for waiter in all_served_at_once(queue)]
    assert foretold == came + [None] * (12 - len(came))
    assert len(came) == 4 + 4 + 2


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
    """Every sequence of arrivals, against a plain list of who waits."""

    tenants = st.integers(0, 3)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.queue = WaitQueue(on_overdue=refused)
        self.accounts = [
            account("plain"),
            account("heavy", weight=3),
            account("capped", max_leases=1),
            account("heavy-capped", weight=5, max_leases=2),
        ]
        self.waiting: list[Waiter] = []
        self.gone: list[Waiter] = []
        self.arrivals = 0

    def teardown(self) -> None:
        self.loop.close()

    def servable(self) -> list[Waiter]:
        return [waiter for waiter in self.waiting if waiter.tenant_state.can_lease]

    @rule(tenant=tenants)
    def come(self, tenant: int) -> None:
        waiter = Waiter(
            self.accounts[tenant],
            self.loop.create_future(),
            since=float(self.arrivals),
            deadline=FOR_EVER,
        )
        self.arrivals += 1
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
        if candidates := self.waiting + self.gone:
            waiter = data.draw(st.sampled_from(candidates))
            self.queue.remove(waiter)
            (self.waiting if waiter in self.waiting else self.gone).remove(waiter)

    @rule()
    def serve(self) -> None:
        expected = min(
            self.servable(),
            key=lambda waiter: (waiter.tenant_state.share, waiter.since),
            default=None,
        )
        assert served(self.queue) is expected
        if expected is not None:
            self.waiting.remove(expected)

    @rule()
    def expect(self) -> None:
        for returning in self.accounts:
            if returning.leased:
                connection = a_connection()
                waiter = self.queue.expect(connection, returning)
                assert (
                    waiter is None
                    or waiter.tenant_state is returning
                    or waiter.tenant_state.can_lease
                )
                assert waiter is None or waiter.is_expected
                self.queue.unexpect(connection)
                assert waiter is None or not waiter.is_expected

    @rule(tenant=tenants)
    def release(self, tenant: int) -> None:
        self.accounts[tenant].leased = max(0, self.accounts[tenant].leased - 1)

    @rule()
    def clear(self) -> None:
        taken = self.queue.clear()
        assert len(taken) == len(set(taken))
        assert set(self.waiting) <= set(taken) <= set(self.waiting + self.gone)
        self.waiting.clear()

    @invariant()
    def the_counts_add_up(self) -> None:
        assert self.queue.count == sum(each.waiting for each in self.accounts)
        assert len(self.waiting) <= self.queue.count <= len(self.waiting) + len(self.gone)
        for each in self.accounts:
            own = sum(waiter.tenant_state is each for waiter in self.waiting)
            assert own <= each.waiting <= own + sum(gone.tenant_state is each for gone in self.gone)

    @invariant()
    def servable_are_as_many_as_the_caps_allow(self) -> None:
        caps = {each: each.tenant.spec.max_leases for each in self.accounts}
        assert self.queue.servable == sum(
            each.waiting if cap is None else min(each.waiting, max(0, cap - each.leased))
            for each, cap in caps.items()
        )

    @invariant()
    def no_cap_is_exceeded(self) -> None:
        assert self.accounts[2].leased <= 1
        assert self.accounts[3].leased <= 2


TestAnySequenceOfArrivals = WaitQueueMachine.TestCase


async def test_callers_are_told_at_their_own_deadline_whoever_came_first(
    queue: WaitQueue,
) -> None:
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
