"""Series of single tenants for Prometheus: of those where something happens, and no others.

Ten thousand tenants with a series each would cost more than they tell. Who has the most demand
for what they may have is shown, with those the operator always wants to see; the rest is one
more tenant, `_other`.

Its counters count what tenants do while they are not shown: they never fall, whoever comes and
goes, and whatever is counted is counted in one series.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.control.monitoring.snapshot import TenantSnapshot
from app.domain.counters import Counters

OTHER = "_other"
_LABELS = ("tenant",)
_NOTHING = Counters()


class TenantSeries:
    """Which tenants are shown, and what the others did so far."""

    def __init__(self, most: int, always: Collection[str]) -> None:
        """Show *most* tenants, and *always* these."""
        self._most = most
        self._always = frozenset(always)
        self._before: dict[str, Counters] = {}
        # Leases and timeouts of `_other`.
        self._other = (0, 0)

    def families(self, rows: Sequence[TenantSnapshot]) -> Iterator[Metric]:
        """Everything about these tenants, who are all there are."""
        shown = self._select(rows)
        others = [row for row in rows if row.spec.id not in shown]
        self._add_others(rows, others)
        yield GaugeMetricFamily(
            "poolkeeper_metrics_tenants_omitted",
            "Tenants without a series of their own, summed up as _other.",
            len(others),
        )
        yield from _gauges(list(shown.values()), others)
        yield from self._counters(shown)

    def _select(self, rows: Sequence[TenantSnapshot]) -> dict[str, TenantSnapshot]:
        chosen = heapq.nsmallest(self._most, rows, key=_rank)
        chosen += [row for row in rows if row.spec.id in self._always]
        return {row.spec.id: row for row in sorted(chosen, key=lambda row: row.spec.id)}

    def _add_others(self, rows: Iterable[TenantSnapshot], others: Iterable[TenantSnapshot]) -> None:
        leases, timeouts = self._other
        for row in others:
            now, before = row.stats.counters, self._before.get(row.spec.id, _NOTHING)
            # Less than before: it was deleted, and another has its name.
            leases += max(0, now.connections_acquired - before.connections_acquired)
            timeouts += max(0, now.timeouts - before.timeouts)
        self._other = leases, timeouts
        self._before = {row.spec.id: row.stats.counters for row in rows}

    def _counters(self, shown: dict[str, TenantSnapshot]) -> Iterator[Metric]:
        leases = CounterMetricFamily(
            "poolkeeper_tenant_leases", "Leases begun by a tenant.", labels=_LABELS
        )
        timeouts = CounterMetricFamily(
            "poolkeeper_tenant_timeouts",
            "Leases a tenant did not obtain within their deadline.",
            labels=_LABELS,
        )
        for name, row in shown.items():
            leases.add_metric((name,), row.stats.counters.connections_acquired)
            timeouts.add_metric((name,), row.stats.counters.timeouts)
        leases.add_metric((OTHER,), self._other[0])
        timeouts.add_metric((OTHER,), self._other[1])
        yield leases
        yield timeouts


def _rank(row: TenantSnapshot) -> tuple[float, int, int, str]:
    """The smallest first: most demand for what it may have, most waiting, most failures."""
    gauges, counters = row.stats.metrics, row.stats.counters
    demand = (gauges.active_connections + gauges.waiting_requests) / row.max_size
    failures = counters.timeouts + counters.rejected + counters.connect_failures
    return -demand, -gauges.waiting_requests, -failures, row.spec.id


def _gauges(shown: Sequence[TenantSnapshot], others: Sequence[TenantSnapshot]) -> Iterator[Metric]:
    connections = GaugeMetricFamily(
        "poolkeeper_tenant_connections",
        "A tenant's connections; idle ones of a shared pool are nobody's.",
        labels=("tenant", "state"),
    )
    most = GaugeMetricFamily(
        "poolkeeper_tenant_connections_max",
        "Most connections a tenant may have; within a shared pool, its own limit or the pool's.",
        labels=_LABELS,
    )
    pending = GaugeMetricFamily(
        "poolkeeper_tenant_pending_requests", "Leases a tenant waits for now.", labels=_LABELS
    )
    wait = GaugeMetricFamily(
        "poolkeeper_tenant_wait_p99_seconds",
        "99 of 100 leases waited no longer, within the statistics' window; at worst for _other.",
        labels=_LABELS,
    )
    for name, rows in [*((row.spec.id, (row,)) for row in shown), (OTHER, others)]:
        gauges = [row.stats.metrics for row in rows]
        connections.add_metric((name, "idle"), sum(each.idle_connections for each in gauges))
        connections.add_metric((name, "used"), sum(each.active_connections for each in gauges))
        most.add_metric((name,), sum(row.max_size for row in rows))
        pending.add_metric((name,), sum(each.waiting_requests for each in gauges))
        waits = [row.stats.wait.p99_ms for row in rows if row.stats.wait.p99_ms is not None]
        if waits:
            wait.add_metric((name,), max(waits) / 1000)
    yield from (connections, most, pending, wait)
