"""Estimates of a load from totals, compared with queues whose every wait is known."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.nodes.entry_totals import EDGES, EntryTotals, class_of
from app.domain.nodes.estimated_load import EstimatedLoad
from app.domain.nodes.wait_estimate import WaitEstimate
from tests.domain.nodes.queues import (
    Served,
    bursts,
    closed_queue,
    even,
    exponential,
    open_queue,
    poisson,
    totals_of,
    varied,
)

PATIENCE = 0.05
# The period that a node's view covers.
SECONDS = 60.0


def totals(
    transactions: int, seconds: float = 0.0, wait: float = 0.0, *oldest: float
) -> EntryTotals:
    return EntryTotals(
        transactions=transactions,
        transaction_seconds=seconds,
        wait_seconds=wait,
        oldest_waits=oldest,
    )


def test_sums_that_fell_started_again() -> None:
    assert totals(10, 5.0, 1.0).since(totals(4, 2.0, 0.5)) == totals(6, 3.0, 0.5)
    # A freed pool: only its first transactions are known to be new.
    assert totals(3, 0.2, 0.1).since(totals(4, 2.0, 0.5)) == totals(3, 0.2, 0.1)
    restarted = replace(totals(9, 0.2, 0.1), begun=1).since(replace(totals(4, 2.0, 0.5), begun=4))
    assert restarted == replace(totals(9, 0.2, 0.1), begun=1)


def test_a_clock_that_is_set_back_does_not_count_old_transactions_again() -> None:
    assert totals(1009, 85.0, 9.5).since(totals(1004, 90.0, 9.0)) == totals(5, 0.0, 0.5)
    # PgBouncer may also have freed the pool: its first four transactions are not seen.
    assert totals(9, 0.2, 0.1).since(totals(4, 2.0, 0.5)) == totals(5, 0.0, 0.0)


def test_an_agent_and_its_pooler_start_again_independently() -> None:
    before = totals(4, 2.0, 0.5, 1.0, 3.0)
    assert totals(6, 3.0, 0.5, 1.0, 4.0, 2.0).since(before) == totals(2, 1.0, 0.0, 0.0, 1.0, 2.0)
    assert totals(6, 3.0, 0.5, 0.5).since(before) == totals(2, 1.0, 0.0, 0.5)
    assert totals(1, 0.5, 0.0, 1.0, 3.5).since(before) == totals(1, 0.5, 0.0, 0.0, 0.5)
    added = totals(2, 1.0, 0.25, 0.0, 1.0, 2.0)
    assert before.plus(added).since(before) == added


def test_each_wait_is_in_one_class() -> None:
    for index, edge in enumerate(EDGES):
        assert class_of(edge * 0.999) == index
        assert class_of(edge * 1.001) == index + 1
    assert class_of(0.0) == 0
    assert class_of(1e9) == len(EDGES)


def test_holds_are_without_the_wait() -> None:
    load = EstimatedLoad.during(10.0, totals(100, 3.0, 1.0))
    assert load is not None
    assert (load.arrivals, load.hold, load.wait) == (10.0, 0.02, 0.01)
    assert load.erlangs == pytest.approx(0.2)


@pytest.mark.parametrize("count", [1, 2, 7, 5000])
def test_holds_vary_as_at_random_around_their_mean(count: int) -> None:
    load = EstimatedLoad(arrivals=1.0, hold=0.02, wait=0.0)
    counted, seconds, squares = load.holds(count).moments()
    assert counted == count
    assert seconds == pytest.approx(0.02 * count, rel=0.05)
    if count > 1000:
        assert squares == pytest.approx(2 * 0.02**2 * count, rel=0.1)


def test_no_transaction_is_no_load() -> None:
    assert EstimatedLoad.during(10.0, totals(0)) is None


def test_who_never_waits_is_never_late() -> None:
    waits = WaitEstimate(EstimatedLoad(arrivals=10.0, hold=0.01, wait=0.0), 5)
    assert waits.late_share(0.0) == 0.0
    assert waits.quantile(0.99) == 0.0
    assert waits.histogram(7).moments() == (7, 0.0, 0.0)


seen_waits = st.lists(st.floats(0.0, 60.0), max_size=len(EDGES) + 1).map(tuple)


@given(
    st.builds(
        EstimatedLoad,
        arrivals=st.floats(0.0, 1e4),
        hold=st.floats(0.0, 1e3),
        wait=st.floats(0.0, 1e3),
        oldest_waits=seen_waits,
    ),
    st.integers(1, 200),
    st.integers(0, 1000),
)
def test_every_load_has_an_estimate(load: EstimatedLoad, size: int, count: int) -> None:
    waits = WaitEstimate(load, size)
    shares = [waits.late_share(patience) for patience in (0.0, *EDGES)]
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert shares == sorted(shares, reverse=True)
    assert 0.0 <= waits.quantile(0.5) <= waits.quantile(0.95) <= waits.quantile(0.99)
    assert waits.histogram(count).count == count


LOADS = {
    "random holds": (poisson, exponential, 40.0, 0.1, 5),
    "random holds, less busy": (poisson, exponential, 80.0, 0.05, 5),
    "few who wait": (poisson, exponential, 250.0, 0.03, 10),
    "even holds": (poisson, even, 45.0, 0.1, 5),
    "even holds on many": (poisson, even, 90.0, 0.1, 10),
    "varied holds": (poisson, varied, 35.0, 0.1, 5),
    "varied holds on many": (poisson, varied, 70.0, 0.1, 10),
    "bursts": (bursts, exponential, 35.0, 0.1, 5),
    "bursts of short ones": (bursts, exponential, 300.0, 0.02, 8),
    "bursts of varied ones": (bursts, varied, 60.0, 0.1, 10),
    "more than it can carry": (poisson, exponential, 55.0, 0.1, 5),
}


@pytest.mark.parametrize("name", LOADS)
def test_estimates_are_within_a_factor_of_one_and_a_half(name: str) -> None:
    arrivals, hold, rate, mean, size = LOADS[name]
    random = Random(7)  # noqa: S311 - a load, no secret
    served = open_queue(arrivals(rate, random), hold(mean), size, seconds=SECONDS, random=random)
    check_within_a_factor(served, size)


@pytest.mark.parametrize(
    ("clients", "think", "mean", "size"),
    [(96, 0.0, 0.05, 5), (12, 0.1, 0.05, 4), (2, 0.1, 0.05, 1), (30, 1.0, 0.05, 2)],
)
def test_so_are_those_of_clients_that_come_back_once_they_are_served(
    clients: int, think: float, mean: float, size: int
) -> None:
    check_within_a_factor(
        closed_queue(clients, think, exponential(mean), size, seconds=SECONDS), size
    )


def check_within_a_factor(served: list[Served], size: int) -> None:
    load = EstimatedLoad.during(SECONDS, totals_of(served, SECONDS))
    assert load is not None
    estimate, waits = WaitEstimate(load, size), sorted(each.wait for each in served)
    late, p99 = sum(wait > PATIENCE for wait in waits), waits[int(0.99 * len(waits))]
    assert p99 / 1.5 < estimate.quantile(0.99) < p99 * 1.5
    # A handful of late ones cannot be seen.
    if late >= 50:
        share = late / len(waits)
        assert share / 1.5 < estimate.late_share(PATIENCE) < share * 1.5
        counted = estimate.histogram(10_000).count_above(PATIENCE)
        assert share / 1.5 < counted / 10_000 < share * 1.5


def test_without_a_look_at_the_queue_the_model_says_it() -> None:
    # 96 clients on 5 connections of 20 ms each: every wait is about 91 x 4 ms.
    load = EstimatedLoad(arrivals=250.0, hold=0.02, wait=0.364)
    assert WaitEstimate(load, 5).late_share(PATIENCE) == pytest.approx(0.87, abs=0.02)
    # As many connections as are in use on average: c - a is noise.
    noisy = EstimatedLoad(arrivals=249.0, hold=0.02, wait=0.364)
    assert WaitEstimate(noisy, 5).late_share(PATIENCE) == pytest.approx(0.87, abs=0.02)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_nobody_waited_longer_than_all_together(count: int) -> None:
    """Otherwise a single wait would be spread around itself, up to 4.6 times as much."""
    load = EstimatedLoad.during(60.0, totals(count, count * 0.3, count * 0.21))
    assert load is not None
    waits = WaitEstimate(load, 5)
    together = count * 0.21
    assert waits.quantile(0.99) == pytest.approx(min(together, 4.6 * 0.21), rel=0.02)
    assert waits.late_share(together) == 0.0
    assert waits.late_share(0.1) > 0.5
    assert waits.histogram(100).count_above(1.2 * together) == 0
