"""Prometheus series of single tenants: only of the busiest, because series are expensive.

The tenants with the highest demand relative to their limit have their own series, and so have those
that the operator named; all others are summed up as one more tenant, `_other`.

The counters of `_other` count what tenants do while they are part of it. So they never fall when
tenants come and go, and everything is counted in exactly one series.
"""

import heapq
from collections.abc import Collection, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.control.monitoring.snapshot import TenantSnapshot
from app.domain.counters import COUNTERS, Counters

OTHER = "_other"
_LABELS = ("tenant",)
_COUNTED = {
    "connections_acquired": "poolkeeper_tenant_leases",
    "timeouts": "poolkeeper_tenant_timeouts",
}
_NOTHING = Counters()


class TenantSeries:
    """Selects the tenants with series, and counts what the others did."""

    def __init__(self, most: int, always: Collection[str]) -> None:
        """Select *most* tenants, and always those in *always*."""
        self._most = most
        self._always = frozenset(always)
        self._before: dict[str, Counters] = {}
        self._other = dict.fromkeys(_COUNTED, 0)

    def families(self, tenants: Sequence[TenantSnapshot]) -> Iterator[Metric]:
        selected = self._select(tenants)
        others = [tenant for tenant in tenants if tenant.spec.id not in selected]
        self._count(others)
        self._before = {tenant.spec.id: tenant.stats.counters for tenant in tenants}
        yield GaugeMetricFamily(
            "poolkeeper_metrics_tenants_omitted",
            "Tenants without series of their own, summed up as _other.",
            len(others),
        )
        yield from _gauges(list(selected.values()), others)
        yield from self._counters(selected)

    def _select(self, tenants: Sequence[TenantSnapshot]) -> dict[str, TenantSnapshot]:
        chosen = heapq.nsmallest(self._most, tenants, key=_rank)
        chosen += [tenant for tenant in tenants if tenant.spec.id in self._always]
        return {each.spec.id: each for each in sorted(chosen, key=lambda each: each.spec.id)}

    def _count(self, others: Sequence[TenantSnapshot]) -> None:
        for tenant in others:
            now, before = tenant.stats.counters, self._before.get(tenant.spec.id, _NOTHING)
            if now is not before:
                for name in _COUNTED:
                    # Less than before: the tenant was deleted and created again.
                    self._other[name] += max(0, getattr(now, name) - getattr(before, name))

    def _counters(self, selected: dict[str, TenantSnapshot]) -> Iterator[Metric]:
        for name, metric in _COUNTED.items():
            family = CounterMetricFamily(metric, COUNTERS[name].meaning, labels=_LABELS)
            for tenant_id, tenant in selected.items():
                family.add_metric((tenant_id,), getattr(tenant.stats.counters, name))
            family.add_metric((OTHER,), self._other[name])
            yield family


def _rank(tenant: TenantSnapshot) -> tuple[float, int, int, str]:
    """Sort by demand relative to the limit, then waiting callers, then failures; most first."""
    gauges, counters = tenant.stats.metrics, tenant.stats.counters
    demand = (gauges.active_connections + gauges.waiting_requests) / tenant.max_size
    failures = counters.timeouts + counters.rejected + counters.connect_failures
    return -demand, -gauges.waiting_requests, -failures, tenant.spec.id


def _gauges(
    selected: Sequence[TenantSnapshot], others: Sequence[TenantSnapshot]
) -> Iterator[Metric]:
    connections = GaugeMetricFamily(
        "poolkeeper_tenant_connections",
        "Connections of a tenant in the service's pools, without idle ones of shared pools.",
        labels=("tenant", "state"),
    )
    max_size = GaugeMetricFamily(
        "poolkeeper_tenant_connections_max",
        "Maximum connections of a tenant: its own limit in a shared pool, or its pool's limit.",
        labels=_LABELS,
    )
    pending = GaugeMetricFamily(
        "poolkeeper_tenant_pending_requests",
        "Callers that wait for a lease in the service's own pools.",
        labels=_LABELS,
    )
    wait = GaugeMetricFamily(
        "poolkeeper_tenant_wait_p99_seconds",
        "99th percentile of waits, with or without success, in the statistics window; for _other, "
        "the highest of all.",
        labels=_LABELS,
    )
    for name, tenants in [*((each.spec.id, (each,)) for each in selected), (OTHER, others)]:
        gauges = [tenant.stats.metrics for tenant in tenants]
        connections.add_metric((name, "idle"), sum(each.idle_connections for each in gauges))
        connections.add_metric((name, "used"), sum(each.active_connections for each in gauges))
        max_size.add_metric((name,), sum(tenant.max_size for tenant in tenants))
        pending.add_metric((name,), sum(each.waiting_requests for each in gauges))
        percentiles = [tenant.stats.wait.p99_ms for tenant in tenants]
        waits = [p99_ms for p99_ms in percentiles if p99_ms is not None]
        if waits:
            wait.add_metric((name,), max(waits) / 1000)
    yield from (connections, max_size, pending, wait)
