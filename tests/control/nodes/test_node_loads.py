"""Nodes' reports of a tenant are summed over nodes and time, whatever restarts."""

from typing import Any

import pytest

from app.control.nodes.node_loads import NodeLoads
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.load_reading import LoadReading
from app.domain.nodes.report import EntryReport
from app.domain.pool import PoolMetrics
from tests.fixtures.clock import Clock
from tests.fixtures.reporting import entry


def counted(
    transactions: int, *, held: float = 0.0, wait: float = 0.0, **gauges: Any
) -> EntryReport:
    totals = EntryTotals(
        transactions=transactions, transaction_seconds=held + wait, wait_seconds=wait
    )
    facts: dict[str, Any] = {"size": 2, "connections": 2, "in_use": 0, "clients": 3}
    return entry("acme", totals=totals, **(facts | gauges))


class Site:
    """Two nodes that report every second what has changed."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loads = NodeLoads(self.clock)

    def hear(self, node: str, *entries: EntryReport, gone: frozenset[str] = frozenset()) -> None:
        self.loads.hear(node, entries, gone)

    def reading(self) -> LoadReading:
        reading = self.loads.reading("acme")
        assert reading is not None
        return reading


def test_two_nodes_are_added_up() -> None:
    site = Site()
    # Earlier counts are of an unknown time.
    site.hear("a", counted(1_000_000, held=5e5, in_use=1))
    site.hear("b", counted(500, in_use=2, waiting=4))
    before = site.reading()
    assert (before.totals.transactions, before.size) == (0, 4)
    assert before.metrics == PoolMetrics(
        total_connections=4, idle_connections=1, active_connections=3, waiting_requests=4
    )
    site.clock.now += 1.0
    site.hear("a", counted(1_000_010, held=5e5 + 2.0, in_use=1))
    site.hear("b", counted(505, held=1.0, wait=3.0))
    # Nothing of *b* changes for two seconds.
    site.clock.now += 2.0
    site.hear("a", counted(1_000_010, held=5e5 + 2.0, in_use=0))
    site.hear("b")
    after = site.reading()
    # Those that clients had requested before the first reports have ended since.
    assert after.totals.transactions == 15 + 3 + 4
    assert after.totals.held_seconds == pytest.approx(3.0)
    assert after.totals.wait_seconds == pytest.approx(3.0)
    assert after.busy_seconds - before.busy_seconds == pytest.approx(3 * 1 + 1 * 2)
    assert after.waiting_seconds - before.waiting_seconds == pytest.approx(4.0)
    assert after.open_seconds - before.open_seconds == pytest.approx(3 * 4.0)
    assert site.loads.transactions == 22
    assert site.loads.held_seconds == pytest.approx(3.0)


def test_a_pooler_that_starts_again_takes_nothing_away() -> None:
    site = Site()
    for transactions, held in [(100, 10.0), (150, 15.0), (20, 2.0), (25, 2.5)]:
        site.hear("a", counted(transactions, held=held))
        site.clock.now += 1.0
    assert site.reading().totals.transactions == 50 + 20 + 5
    assert site.reading().totals.held_seconds == pytest.approx(5.0 + 2.0 + 0.5)


def test_a_silent_node_counts_for_nothing_until_it_is_back() -> None:
    site = Site()
    site.hear("a", counted(1, in_use=2))
    site.clock.now += 60.0
    silent = site.reading()
    assert (silent.metrics.active_connections, silent.busy_seconds) == (0, 0.0)
    site.hear("a", counted(2, in_use=2))
    site.clock.now += 1.0
    site.hear("a", counted(3, in_use=2))
    assert site.reading().busy_seconds == pytest.approx(2.0)


def test_who_is_on_no_node_any_more_is_forgotten() -> None:
    site = Site()
    site.hear("a", counted(1))
    site.hear("b", counted(1))
    site.hear("a", gone=frozenset({"acme", "unknown"}))
    assert site.reading().metrics.total_connections == 2
    site.loads.forget("b")
    assert site.loads.reading("acme") is None
    assert site.loads.is_empty is False
    site.loads.forget("a")
    assert site.loads.is_empty


def test_those_with_something_to_tell_are_active() -> None:
    site = Site()
    site.hear("a", counted(1, connections=0, clients=0))
    assert [name for name, _ in site.loads.active(site.clock.now - 1)] == ["acme"]
    assert [name for name, _ in site.loads.active(site.clock.now)] == []
    site.clock.now += 1.0
    site.hear("a", counted(1, connections=0, clients=1))
    assert [name for name, _ in site.loads.active(site.clock.now)] == ["acme"]


def test_who_waits_is_counted_on_reachable_nodes() -> None:
    site = Site()
    site.hear("a", counted(1, waiting=4))
    site.clock.now += 50.0
    site.hear("b", counted(1, waiting=3))
    assert site.loads.waiting() == {"acme": 3}, "of a silent node nothing is known"
    site.hear("a")
    assert site.loads.waiting() == {"acme": 7}
    site.hear("b", gone=frozenset({"acme"}))
    assert site.loads.waiting() == {"acme": 4}
    site.hear("a", counted(1))
    assert site.loads.waiting() == {}
    site.hear("a", counted(1, waiting=4))
    site.loads.forget("a")
    assert site.loads.waiting() == {}


def test_waits_are_those_of_the_last_minute() -> None:
    site = Site()
    count = 0
    # For a minute each waits one second, and then none waits any more.
    for second in range(120):
        count += 10
        waited = min(second, 60) * 10.0
        site.hear("a", counted(count, held=0.01 * count, wait=waited, in_use=1))
        site.clock.now += 1.0
        if second == 59:
            assert late(site) > 0.8
    assert late(site) == pytest.approx(0.0, abs=0.05)
    site.clock.now += 61.0
    tenant = site.loads.find("acme")
    assert tenant is not None
    assert tenant.waits(site.clock.now) is None


def late(site: Site) -> float:
    tenant = site.loads.find("acme")
    assert tenant is not None
    waits = tenant.waits(site.clock.now)
    assert waits is not None
    return waits.late_share(0.1)
