"""Samples of tenants on nodes, like those of pools, from the reports of agents.

Poolers keep sums and no histograms: percentiles of waits are estimated, and those of holds are
unknown.
"""

from collections.abc import Iterator
from dataclasses import asdict

from app.control.nodes.node_loads import NodeLoads
from app.control.nodes.tenant_load import NodeTenantLoad
from app.domain.counters import Counters
from app.domain.history import SERVICE, on_nodes
from app.domain.nodes.load_reading import LoadReading
from app.domain.pool import NO_CONNECTIONS, UNMEASURED, Percentiles, PoolMetrics, PoolStats

# The limit of a sample's values. Agents may report any value, and sums have no limit.
_LARGEST_GAUGE, _LARGEST_COUNT = 2**31 - 1, 2**63 - 1


class NodeSamples:
    """Measures the tenants on nodes at each poll."""

    def __init__(self, loads: NodeLoads) -> None:
        self._loads = loads
        self._measured_at = 0.0

    def measure(self) -> Iterator[tuple[str, PoolStats, float]]:
        """Yield subject, statistics, and connection-seconds so far.

        First each tenant with changes since the last poll, then all together.
        """
        since, now = self._measured_at, self._loads.now
        self._measured_at = now
        gauges, worst = [NO_CONNECTIONS], UNMEASURED
        for name, load in self._loads.active(since):
            if (reading := self._loads.reading(name)) is None:
                continue
            waits = _percentiles(load, now)
            gauges.append(reading.metrics)
            worst = Percentiles.worst((worst, waits))
            yield on_nodes(name), _stats(reading, waits), reading.totals.held_seconds
        if self._loads.is_empty:
            return
        counters = Counters(connections_acquired=self._loads.transactions)
        together = _of(counters, PoolMetrics.total(gauges), worst)
        yield on_nodes(SERVICE), together, self._loads.held_seconds


def _stats(reading: LoadReading, waits: Percentiles) -> PoolStats:
    totals = reading.totals
    counters = Counters(connections_acquired=totals.transactions, wait_seconds=totals.wait_seconds)
    return _of(counters, reading.metrics, waits)


def _of(counters: Counters, metrics: PoolMetrics, waits: Percentiles) -> PoolStats:
    acquired = min(counters.connections_acquired, _LARGEST_COUNT)
    gauges = {name: min(value, _LARGEST_GAUGE) for name, value in asdict(metrics).items()}
    known = counters._replace(connections_acquired=acquired)
    return PoolStats(counters=known, metrics=PoolMetrics(**gauges), wait=waits)


def _percentiles(load: NodeTenantLoad, now: float) -> Percentiles:
    waits = load.waits(now)
    if waits is None:
        return UNMEASURED
    return Percentiles(p95_ms=waits.quantile(0.95) * 1000, p99_ms=waits.quantile(0.99) * 1000)
