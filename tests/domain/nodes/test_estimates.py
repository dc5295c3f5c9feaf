"""What totals say of a load, compared with queues whose every wait is known."""

from __future__ import annotations

from heapq import heapify, heapreplace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.nodes.estimates import EntryTotals, EstimatedLoad

PATIENCE = 0.05


def totals(transactions: int, seconds: float = 0.0, wait: float = 0.0) -> EntryTotals:
    return EntryTotals(transactions=transactions, transaction_seconds=seconds, wait_seconds=wait)


def test_sums_that_fell_began_anew() -> None:
    assert totals(10, 5.0, 1.0).since(totals(4, 2.0, 0.5)) == totals(6, 3.0, 0.5)
    # A freed pool: its first transactions are all that is known to be new.
    assert totals(3, 0.2, 0.1).since(totals(4, 2.0, 0.5)) == totals(3, 0.2, 0.1)
    assert totals(9, 0.2, 0.1).since(totals(4, 2.0, 0.5)) == totals(9, 0.2, 0.1)


def test_holds_are_without_the_wait() -> None:
    load = EstimatedLoad.during(10.0, totals(100, 3.0, 1.0))
    assert load is not None
    assert (load.arrivals, load.hold, load.wait) == (10.0, 0.02, 0.01)
    assert load.erlangs == pytest.approx(0.2)


def test_no_transaction_is_no_load() -> None:
    assert EstimatedLoad.during(10.0, totals(0)) is None


def test_who_never_waits_is_never_late() -> None:
    load = EstimatedLoad(arrivals=10.0, hold=0.01, wait=0.0)
    assert load.late_share(5, 0.0) == 0.0
    assert load.wait_p99(5) == 0.0


@given(st.floats(0.0, 1e4), st.floats(0.0, 1e3), st.floats(0.0, 1e3), st.integers(1, 200))
def test_every_load_has_an_estimate(arrivals: float, hold: float, wait: float, size: int) -> None:
    load = EstimatedLoad(arrivals=arrivals, hold=hold, wait=wait)
    assert 0.0 <= load.late_share(size, PATIENCE) <= load.late_share(size, 0.0) <= 1.0
    assert load.wait_p99(size) >= 0.0


def waits_of(rate: float, hold: float, size: int, *, calls: int = 60_000) -> list[float]:
    """Of a queue with random arrivals and holds, in order of arrival."""
    random = Random(7)  # noqa: S311 - a load, no secret
    free_at = [0.0] * size
    heapify(free_at)
    now, waits = 0.0, []
    for _ in range(calls):
        now += random.expovariate(rate)
        begin = max(now, free_at[0])
        waits.append(begin - now)
        heapreplace(free_at, begin + random.expovariate(1.0 / hold))
    return waits


@pytest.mark.parametrize(
    ("rate", "hold", "size"), [(40.0, 0.1, 5), (80.0, 0.05, 5), (250.0, 0.03, 10), (20.0, 0.2, 8)]
)
def test_estimates_are_within_a_factor_of_one_and_a_half(
    rate: float, hold: float, size: int
) -> None:
    waits = waits_of(rate, hold, size)
    load = EstimatedLoad(arrivals=rate, hold=hold, wait=sum(waits) / len(waits))
    late = sum(wait > PATIENCE for wait in waits) / len(waits)
    p99 = sorted(waits)[int(0.99 * len(waits))]
    assert late / 1.5 < load.late_share(size, PATIENCE) < late * 1.5
    assert p99 / 1.5 < load.wait_p99(size) < p99 * 1.5


def test_callers_that_always_come_back_to_a_full_pool_all_wait() -> None:
    # 96 of them on 5 connections of 20 ms each: every wait is about 91 x 4 ms.
    load = EstimatedLoad(arrivals=250.0, hold=0.02, wait=0.364)
    assert load.late_share(5, PATIENCE) == pytest.approx(0.87, abs=0.02)
    # As many connections as are in use on average: c - a is noise.
    noisy = EstimatedLoad(arrivals=249.0, hold=0.02, wait=0.364)
    assert noisy.late_share(5, PATIENCE) == pytest.approx(0.87, abs=0.02)
