"""Metrics of pools and tenants for Prometheus: rendered once per poll, in a thread, and cached.

Everything that grows with the number of pools and tenants is here; metrics that are read at each
scrape are in `service_metrics.py`. To add a counter, edit only `app/domain/counters.py`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.api.telemetry.tenant_series import TenantSeries
from app.control.monitoring.snapshot import Snapshot
from app.domain.counters import COUNTERS
from app.domain.eviction import EvictionReason
from app.domain.histogram import Histogram
from app.domain.isolation_checks import Severity
from app.domain.tenant import PoolStrategy
from app.domain.wait import WaitCause

Encoder = Callable[[Collector], bytes]

_GROUP = ("server", "strategy")
# From 0.12 ms to 32 s by powers of two: bounds of our own histograms' buckets, so the counts are
# exact.
_OCTAVES = range(-13, 6)
# OpenTelemetry's name, our histogram, its sum and its help text.
_DURATIONS = (
    ("wait", "wait", "wait_seconds", "How long leases waited for a connection."),
    ("use", "hold", "hold_seconds", "How long leases lasted."),
    ("create", "connect", "connect_seconds", "How long opening connections took."),
)


class Exposition:
    """The latest prepared snapshot, rendered in the formats that scrapers ask for."""

    def __init__(self, most_tenants: int, always: Collection[str]) -> None:
        """Give *most_tenants* tenants their own series, and always the tenants in *always*."""
        self._series = TenantSeries(most_tenants, always)
        self._lock = asyncio.Lock()
        self._families: SnapshotCollector | None = None
        self._bytes: dict[str, bytes] = {}
        self._usual: tuple[Encoder, str] = choose_encoder("")
        self.snapshot: Snapshot | None = None

    async def prepare(self, snapshot: Snapshot) -> None:
        """Render *snapshot* before the next scrape, in the format of the last scrape.

        Until that is done, scrapes get the previous snapshot.
        """
        async with self._lock:
            if self.snapshot is not None and self.snapshot.sequence >= snapshot.sequence:
                return
            encode, content_type = self._usual
            families = await asyncio.to_thread(SnapshotCollector, snapshot, self._series)
            rendered = await asyncio.to_thread(encode, families)
            self.snapshot, self._families = snapshot, families
            self._bytes = {content_type: rendered}

    @property
    def families(self) -> Iterator[Metric]:
        """The metrics of the latest prepared snapshot; none before the first."""
        return self._families.collect() if self._families else iter(())

    async def render(self, encode: Encoder, content_type: str) -> bytes:
        """Render the latest prepared snapshot in this format; empty before the first."""
        self._usual = encode, content_type
        if content_type not in self._bytes:
            async with self._lock:
                families = self._families
                if families is None:
                    return b""
                if content_type not in self._bytes:
                    self._bytes[content_type] = await asyncio.to_thread(encode, families)
        return self._bytes[content_type]


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    text: str,
    labels: tuple[str, ...],
    values: Mapping[tuple[str, ...], float],
) -> Metric:
    """A metric with one value for each combination of label values."""
    family = kind(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


gauge = partial(_family, GaugeMetricFamily)
counter = partial(_family, CounterMetricFamily)


class SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot, series: TenantSeries) -> None:
        self._families = [
            *_pools(snapshot),
            *_counters(snapshot),
            *_histograms(snapshot),
            _waiting(snapshot),
            _findings(snapshot),
            GaugeMetricFamily("poolkeeper_tenants", "Tenants.", len(snapshot.tenants)),
            *series.families(list(snapshot.tenants.values())),
        ]

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _pools(snapshot: Snapshot) -> Iterator[Metric]:
    connections: Counter[tuple[str, ...]] = Counter()
    most: Counter[tuple[str, ...]] = Counter()
    least: Counter[tuple[str, ...]] = Counter()
    waiting: Counter[tuple[str, ...]] = Counter()
    states: Counter[tuple[str, ...]] = Counter()
    for row in snapshot.pools.values():
        group = (row.server, str(row.strategy))
        connections[*group, "idle"] += row.stats.metrics.idle_connections
        connections[*group, "used"] += row.stats.metrics.active_connections
        most[group] += row.size.max_size
        least[group] += row.size.min_size
        waiting[group] += row.stats.metrics.waiting_requests
        states[*group, str(row.state)] += 1
    for row in snapshot.closed.values():
        waiting[row.server, str(row.strategy)] += row.stats.metrics.waiting_requests
        if row.pause is not None:
            states[row.server, str(row.strategy), str(row.state)] += 1
    # OpenTelemetry's exporters use this name for Prometheus, although promtool objects to a gauge
    # that ends in _count.
    name = "db_client_connection"
    by_state = "Connections by state: idle, or used by a lease."
    yield gauge(f"{name}_count", by_state, (*_GROUP, "state"), connections)
    yield gauge(f"{name}_max", "Maximum size of open pools, summed.", _GROUP, most)
    yield gauge(f"{name}_idle_max", "Maximum idle connections of open pools, summed.", _GROUP, most)
    yield gauge(f"{name}_idle_min", "Minimum size of open pools, summed.", _GROUP, least)
    yield gauge(f"{name}_pending_requests", "Callers that wait for a lease.", _GROUP, waiting)
    yield gauge("poolkeeper_pools", "Open and paused pools by state.", (*_GROUP, "state"), states)


def _counters(snapshot: Snapshot) -> Iterator[Metric]:
    for name, info in COUNTERS.items():
        if info.metric is None:
            continue
        groups = snapshot.totals.counters.items()
        values: dict[tuple[str, ...], float] = {
            group: getattr(counters, name) for group, counters in groups
        }
        yield counter(info.metric, info.meaning, _GROUP, values)
    evictions: dict[tuple[str, ...], float] = {
        (reason,): snapshot.evictions.get(reason, 0) for reason in EvictionReason
    }
    yield counter("poolkeeper_evictions", "Pools closed, by reason.", ("reason",), evictions)


def _histograms(snapshot: Snapshot) -> Iterator[Metric]:
    for name, attribute, total, text in _DURATIONS:
        family = HistogramMetricFamily(
            f"db_client_connection_{name}_time_seconds", text, labels=_GROUP
        )
        for group, durations in sorted(snapshot.totals.durations.items()):
            histogram: Histogram = getattr(durations, attribute)
            bounds = zip(_OCTAVES, histogram.cumulative_counts(_OCTAVES), strict=True)
            buckets = [(str(2.0**octave), count) for octave, count in bounds]
            buckets.append(("+Inf", histogram.count))
            seconds: float = getattr(snapshot.totals.counters[group], total)
            family.add_metric(group, buckets, sum_value=seconds)
        yield family


def _waiting(snapshot: Snapshot) -> Metric:
    waiting: Counter[tuple[str, ...]] = Counter(
        {(server.name, cause): 0 for server in snapshot.servers for cause in WaitCause}
    )
    for tenant in snapshot.tenants.values():
        if tenant.wait is not None:
            waiting[tenant.spec.server, tenant.wait.cause] += tenant.stats.metrics.waiting_requests
    return gauge(
        "poolkeeper_callers_waiting",
        "Callers that wait for a lease, by what they wait for.",
        ("server", "cause"),
        waiting,
    )


def _findings(snapshot: Snapshot) -> Metric:
    found: Counter[tuple[str, ...]] = Counter()
    for server in snapshot.servers:
        for strategy in PoolStrategy:
            found.update({(server.name, strategy, severity): 0 for severity in Severity})
    found.update(snapshot.findings)
    return gauge(
        "poolkeeper_isolation_findings",
        "Isolation checks that failed in the last audit.",
        (*_GROUP, "severity"),
        found,
    )
