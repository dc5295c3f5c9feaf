"""What Prometheus scrapes: gauges and counters by server and strategy, never by tenant.

Names of connection metrics are OpenTelemetry's. Everything is read at the moment of the
scrape from what the service knows; nothing is kept here, and no server is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from time import monotonic
from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app import __version__
from app.api.deps import Service, ServiceDep
from app.api.problems import documented
from app.pools.eviction import EvictionReason

_KEY = ("server", "strategy")
_COUNTED = {
    "db_client_connection_timeouts": ("timeouts", "Leases not obtained within their deadline."),
    "poolkeeper_leases": ("acquired", "Leases begun."),
    "poolkeeper_lease_wait_seconds": ("total_wait", "Time that leases waited for a connection."),
    "poolkeeper_leases_rejected": ("rejected", "Leases refused because too many waited."),
    "poolkeeper_connections_opened": ("opened", "Connections opened."),
    "poolkeeper_connections_closed": ("closed", "Connections closed."),
    "poolkeeper_connections_lost": ("lost", "Idle connections that broke by themselves."),
    "poolkeeper_connect_failures": ("connect_failures", "Connections that could not be opened."),
    "poolkeeper_health_check_failures": ("health_check_failures", "Failed connection tests."),
}
_EXAMPLE = """# HELP db_client_connection_count Connections by state.
# TYPE db_client_connection_count gauge
db_client_connection_count{server="local",state="idle",strategy="per_tenant"} 7.0
db_client_connection_count{server="local",state="used",strategy="per_tenant"} 3.0
"""

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Show metrics for Prometheus",
    response_class=Response,
    responses=documented()
    | {
        200: {
            "description": "Prometheus' text format, or OpenMetrics if the scraper accepts it.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        }
    },
)
async def metrics(
    service: ServiceDep,
    accept: Annotated[
        str | None, Header(max_length=1000, description="Formats the scraper understands.")
    ] = None,
) -> Response:
    """Gauges and counters of pools, servers and the service itself; none is per tenant."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(service))
    encode, content_type = choose_encoder(accept or "")
    return Response(encode(registry), headers={"Content-Type": content_type})


class ServiceCollector(Collector):
    """Turns the state of one service into metric families."""

    def __init__(self, service: Service) -> None:
        """Read from *service*."""
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Everything, as of now."""
        yield from self._pools()
        yield from self._counters()
        yield from self._servers()
        yield from self._advice()
        yield from self._itself()

    def _pools(self) -> Iterator[Metric]:
        connections: Counter[tuple[str, ...]] = Counter()
        limits: Counter[tuple[str, ...]] = Counter()
        waiting: Counter[tuple[str, ...]] = Counter()
        pools: Counter[tuple[str, ...]] = Counter()
        for pool in self._service.manager.pools():
            key = (pool.server.name, str(pool.config.strategy))
            seen = pool.metrics
            connections[*key, "idle"] += seen.idle_connections
            connections[*key, "used"] += seen.active_connections
            limits[key] += pool.size.max_size
            waiting[key] += seen.waiting_requests
            pools[*key, str(pool.state)] += 1
        yield _gauge(
            "db_client_connection_count", "Connections by state.", (*_KEY, "state"), connections
        )
        yield _gauge(
            "db_client_connection_max", "Most connections open pools may have.", _KEY, limits
        )
        yield _gauge("db_client_connection_pending_requests", "Leases waiting now.", _KEY, waiting)
        yield _gauge("poolkeeper_pools", "Open pools by state.", (*_KEY, "state"), pools)

    def _counters(self) -> Iterator[Metric]:
        totals = self._service.manager.totals()
        for name, (attribute, text) in _COUNTED.items():
            family = CounterMetricFamily(name, text, labels=_KEY)
            for (server, strategy), counted in sorted(totals.items()):
                family.add_metric((server, strategy), getattr(counted, attribute))
            yield family
        evictions = CounterMetricFamily("poolkeeper_evictions", "Pools closed.", labels=("reason",))
        for reason in EvictionReason:
            evictions.add_metric((reason,), self._service.manager.evictions[reason])
        yield evictions

    def _servers(self) -> Iterator[Metric]:
        servers = self._service.manager.servers
        kinds: Counter[tuple[str, ...]] = Counter()
        for name, server in servers.items():
            kinds[name, "used"] = server.budget.used
            kinds[name, "budget"] = server.budget.limit
            kinds[name, "max"] = server.limits.max_connections if server.limits else 0
        yield _gauge(
            "poolkeeper_server_connections",
            "Connections of all pools together, their budget, and the server's maximum.",
            ("server", "kind"),
            kinds,
        )
        up: Counter[tuple[str, ...]] = Counter(
            {(name,): int(server.is_available) for name, server in servers.items()}
        )
        yield _gauge("poolkeeper_server_up", "Whether the server is reachable.", ("server",), up)

    def _advice(self) -> Iterator[Metric]:
        advising = self._service.advising
        yield CounterMetricFamily(
            "poolkeeper_recommendations",
            "Times the rule asked for another size of a pool.",
            advising.adjustments_total,
        )
        yield GaugeMetricFamily(
            "poolkeeper_recommendations_open", "Recommendations open now.", len(advising.open)
        )

    def _itself(self) -> Iterator[Metric]:
        service = self._service
        yield GaugeMetricFamily(
            "poolkeeper_catalog_up",
            "Whether the catalog was reached when it was last used.",
            int(service.catalog.available),
        )
        poller = service.poller
        if poller.last is not None and poller.last_at is not None:
            age = monotonic() - poller.last_at
            yield GaugeMetricFamily("poolkeeper_poll_age_seconds", "Since the last poll.", age)
            yield GaugeMetricFamily(
                "poolkeeper_poll_duration_seconds",
                "How long the last poll took.",
                poller.last.took_seconds,
            )
            yield GaugeMetricFamily(
                "poolkeeper_leak_suspects",
                "Leases held beyond the threshold at the last poll.",
                poller.last.leak_suspects,
            )
        yield GaugeMetricFamily(
            "poolkeeper_loop_lag_seconds",
            "How late the event loop was at worst in the last ten seconds.",
            service.lag.worst,
        )
        yield GaugeMetricFamily(
            "poolkeeper_events_pending",
            "Events kept in memory until the catalog is back.",
            len(service.journal.pending),
        )
        yield CounterMetricFamily(
            "poolkeeper_events_dropped", "Events that did not fit.", service.journal.dropped
        )
        build: Counter[tuple[str, ...]] = Counter({(__version__,): 1})
        yield _gauge("poolkeeper_build_info", "Which version this is.", ("version",), build)


def _gauge(
    name: str, text: str, labels: tuple[str, ...], values: Counter[tuple[str, ...]]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family
