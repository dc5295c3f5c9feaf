"""What a sizing rule gets of a tenant on nodes, compared with what its callers saw."""

from dataclasses import replace
from random import Random

import pytest

from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.load_reading import LoadOnNodes, LoadReading
from app.domain.pool import PoolMetrics
from tests.domain.nodes.queues import exponential, open_queue, poisson, totals_of

SECONDS = 60.0
PATIENCE = 0.1


def reading(at: float, totals: EntryTotals, *, size: int, waiting: int = 0) -> LoadReading:
    return LoadReading(
        at=at,
        totals=totals,
        busy_seconds=3.0 * at,
        waiting_seconds=2.0 * at,
        open_seconds=4.0 * at,
        metrics=PoolMetrics(
            total_connections=4, idle_connections=1, active_connections=3, waiting_requests=waiting
        ),
        size=size,
    )


def test_late_callers_and_holds_are_as_many_and_as_long_as_they_were() -> None:
    random = Random(11)  # noqa: S311 - a load, no secret
    served = open_queue(poisson(40.0, random), exponential(0.1), 5, seconds=SECONDS, random=random)
    earlier = EntryTotals(transactions=1000, transaction_seconds=100.0, wait_seconds=1.0)
    before = reading(100.0, earlier, size=5)
    after = reading(160.0, earlier.plus(totals_of(served, SECONDS)), size=5, waiting=6)
    found = LoadOnNodes.between(before, after)
    assert (found.arrivals, found.ended) == (len(served) + 6, len(served))
    assert (found.mean_active, found.mean_waiting, found.mean_open) == (3.0, 2.0, 4.0)
    late = sum(each.wait > PATIENCE for each in served)
    assert late / 1.5 < found.wait.count_above(PATIENCE) < late * 1.5
    assert found.wait.count == len(served)
    counted, seconds, squares = found.hold.moments()
    assert counted == len(served)
    assert seconds == pytest.approx(sum(each.hold for each in served), rel=0.05)
    assert squares == pytest.approx(sum(each.hold**2 for each in served), rel=0.2)


def test_without_a_transaction_nothing_is_known_but_who_is_there() -> None:
    before = reading(0.0, EntryTotals(), size=5)
    found = LoadOnNodes.between(before, replace(before, at=5.0, busy_seconds=15.0))
    assert (found.arrivals, found.ended, found.mean_active) == (0, 0, 3.0)
    assert (found.wait.count, found.hold.count) == (0, 0)
