"""The simulated server does what queueing theory and the real pools' rules say."""

from collections.abc import Iterator
from random import Random

import pytest

from app.domain.advisor.erlang import OfferedLoad, late_share
from app.simulator.knee import Knee
from app.simulator.simulated_pool import SimulatedPool, SimulatedPoolConfig
from app.simulator.simulated_server import SimulatedServer
from app.simulator.workload import Request


def server(
    *pools: SimulatedPool,
    budget: int = 100,
    connect: float = 0.0,
    rules: SimulatedPoolConfig | None = None,
    knee: Knee | None = None,
    max_connecting: int = 100,
) -> SimulatedServer:
    return SimulatedServer(
        pools,
        budget=budget,
        rules=rules or SimulatedPoolConfig(),
        connect_seconds=connect,
        max_connecting=max_connecting,
        knee=knee,
    )


def pool(max_size: int, min_size: int = 0, weight: int = 1) -> SimulatedPool:
    return SimulatedPool(min_size=min_size, max_size=max_size, weight=weight)


def markovian(rate: float, hold: float, seconds: float) -> Iterator[Request]:
    """Exponential gaps and holds."""
    random, now = Random(7), 0.0  # noqa: S311 - shapes a load, guards nothing
    while (now := now + random.expovariate(rate)) < seconds:
        yield now, 0, random.expovariate(1 / hold)


@pytest.mark.parametrize(("rate", "size"), [(8.0, 10), (45.0, 50), (0.5, 1)])
def test_waits_agree_with_erlang_c(rate: float, size: int) -> None:
    queue, seconds = pool(size, min_size=size), 40_000 / rate * 5
    patient = SimulatedPoolConfig(acquire_timeout=1e9, max_waiting=10**9)
    server(queue, rules=patient).run(markovian(rate, 1.0, seconds), seconds)
    for patience in (0.0, 0.3):
        late = sum(wait > patience for wait in queue.waits) / queue.acquired
        expected = late_share(OfferedLoad(erlangs=rate, hold=1.0), size, patience)
        assert late == pytest.approx(expected, rel=0.08)


def test_waiters_are_served_in_order_by_the_connection_that_comes_back_first() -> None:
    queue = pool(2, min_size=2)
    requests = [(1.0, 0, 3.0), (1.1, 0, 1.0), (1.2, 0, 1.0), (1.3, 0, 1.0)]
    server(queue).run(requests, 10.0)
    assert queue.waits == pytest.approx([2.1 - 1.2, 3.1 - 1.3])
    assert sum(queue.holds) == pytest.approx(6.0)


def test_a_timeout_holds_nothing() -> None:
    queue = pool(1, min_size=1)
    server(queue).run([(1.0, 0, 7.0), (1.5, 0, 1.0), (2.5, 0, 1.0), (3.5, 0, 1.0)], 20.0)
    assert (queue.acquired, queue.timeouts) == (2, 2)
    assert queue.waits == pytest.approx([4.5])


def test_no_more_than_max_waiting_wait() -> None:
    queue = pool(1, min_size=1)
    full = server(queue, rules=SimulatedPoolConfig(max_waiting=1))
    full.run([(1.0, 0, 1.0), (1.1, 0, 1.0), (1.2, 0, 1.0)], 5.0)
    assert (queue.acquired, queue.rejected) == (2, 1)


def test_a_connection_opens_for_a_waiter_and_closes_when_unused() -> None:
    queue = pool(5)
    grown = server(queue, connect=0.01)
    grown.run([(1.0, 0, 1.0), (1.1, 0, 1.0), (3.0, 0, 0.1)], 5.0)
    assert queue.connects == 2
    assert queue.waits == pytest.approx([0.01, 0.01])
    grown.run([], 302.5)
    grown.sweep()
    # The connection used last was lent again at 3; the other one is unused since 2.01.
    assert queue.open == 1
    assert queue.idle == pytest.approx([3.1])
    grown.run([], 304.0)
    grown.sweep()
    assert (queue.open, grown.used) == (0, 0)
    assert queue.open_seconds == pytest.approx(302.5 - 1.0 + 302.5 - 1.1 + 304 - 302.5)


@pytest.mark.parametrize(("idle_seconds", "left"), [(None, 2), (10.0, 0), (1000.0, 2)])
def test_advice_makes_the_idle_timeout_shorter_and_never_longer(
    idle_seconds: float | None, left: int
) -> None:
    queue = pool(5)
    swept = server(queue)
    swept.run([(1.0, 0, 1.0), (1.0, 0, 1.0)], 13.0)
    queue.idle_seconds = idle_seconds
    swept.sweep()
    assert queue.open == left


def test_only_so_many_connections_are_opened_at_a_time() -> None:
    queue = pool(4)
    server(queue, connect=0.5, max_connecting=2).run([(1.0, 0, 9.0)] * 4, 5.0)
    assert queue.waits == pytest.approx([0.5, 0.5, 1.0, 1.0])


def test_a_smaller_size_closes_idle_connections_at_once_and_leased_ones_on_return() -> None:
    queue = pool(4, min_size=0)
    shrunk = server(queue)
    shrunk.run([(1.0, 0, 0.1), (1.0, 0, 9.0), (1.0, 0, 9.0), (1.0, 0, 0.1)], 2.0)
    shrunk.resize(queue, 1)
    assert (queue.open, len(queue.idle)) == (2, 0)
    shrunk.run([], 11.0)
    assert queue.open == 1


def test_the_budget_is_never_exceeded_and_no_caller_waits_beside_a_usable_connection() -> None:
    random = Random(11)  # noqa: S311 - same
    pools = [pool(8, weight=1 + place % 3) for place in range(6)]
    tight = server(*pools, budget=10, connect=0.02)
    now = 0.0
    for _ in range(400):
        until = now + 1.0
        times = sorted(random.uniform(now, until) for _ in range(60))
        requests = [(at, min(5, int(random.expovariate(0.6))), random.random()) for at in times]
        tight.run(requests, until)
        tight.sweep()
        tight.resize(random.choice(pools), random.randint(1, 12))
        assert tight.used == sum(each.open for each in pools) <= 10
        for each in pools:
            is_short = tight.shortfall(each, until) and tight.used < 10
            waits_in_vain = each.waiting and (each.idle or is_short)
            assert not waits_in_vain
        now = until


def test_idle_connections_of_the_pool_unused_for_longest_are_taken_back_first() -> None:
    old, kept, recent, asking = pool(2), pool(2, min_size=1), pool(2), pool(2)
    tight = server(old, kept, recent, asking, budget=3)
    tight.run([(1.0, 1, 0.1), (2.0, 0, 0.1), (3.0, 2, 0.1), (4.0, 3, 9.0)], 5.0)
    assert [each.open for each in (old, kept, recent, asking)] == [0, 1, 1, 1]


def test_a_connection_goes_to_the_pool_that_holds_less() -> None:
    greedy, modest = pool(4), pool(4)
    tight = server(greedy, modest, budget=2)
    requests = [(1.0, 0, 2.0), (1.1, 0, 3.0), (1.2, 0, 5.0), (1.3, 1, 0.5)]
    tight.run(requests, 10.0)
    # At 3.0 the greedy one's first comes back: it holds another, the modest one none.
    assert modest.waits == pytest.approx([3.0 - 1.3])
    assert greedy.waits[-1] == pytest.approx(3.5 - 1.2)


def test_past_the_knee_leases_take_longer_and_fewer_end() -> None:
    knee = Knee(connections=20)
    rates = {c: c / knee.stretch(c) for c in (10, 19, 20, 21, 40)}
    assert max(rates, key=rates.__getitem__) == 20
    for size in (20, 40):
        queue = pool(size, min_size=size)
        server(queue, knee=knee).run([(1.0 + n / 1e6, 0, 1.0) for n in range(900)], 6.0)
        assert len(queue.holds) / 5 == pytest.approx(rates[size], rel=0.25)
