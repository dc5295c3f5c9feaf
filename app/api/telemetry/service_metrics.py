"""What Prometheus scrapes, by server and strategy, and of the tenants where something happens.

Names of connection metrics are OpenTelemetry's. What is told of pools and tenants is that of
the last poll, see `exposition.py`; what is told of the service itself is of the moment of the
scrape. No server is asked for anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from time import monotonic
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app import __version__
from app.api.auth.authenticator import REQUIRE_READ, REQUIRE_UNBOUND_KEY, Authenticator, AuthFailure
from app.api.http.client_connections import ClientConnections, CloseReason
from app.api.http.dependencies import AuthenticatorDep, Service, ServiceDep
from app.api.http.error_responses import problem_responses
from app.api.http.response_cache import is_stale
from app.api.telemetry.prometheus import encode_metrics, gauge
from app.control.monitoring.isolation_audit import oldest_audit_age
from app.domain.lock_table import BackendSignal

_END = b"# EOF\n"
_EXAMPLE = """# HELP db_client_connection_count Connections by state.
# TYPE db_client_connection_count gauge
db_client_connection_count{server="local",state="idle",strategy="per_tenant"} 7.0
db_client_connection_count{server="local",state="used",strategy="per_tenant"} 3.0
"""

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    dependencies=[REQUIRE_READ, REQUIRE_UNBOUND_KEY],
    summary="Show metrics for Prometheus",
    response_class=Response,
    responses=problem_responses()
    | {
        200: {
            "description": "Prometheus' text format, or OpenMetrics if the scraper accepts it.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        }
    },
)
async def metrics(
    service: ServiceDep,
    door: AuthenticatorDep,
    request: Request,
    accept: Annotated[
        str | None, Header(max_length=1000, description="Formats the scraper understands.")
    ] = None,
) -> Response:
    """Gauges, counters and histograms of pools, servers and the service itself.

    Only tenants with the most demand have series of their own, see the setting
    `metrics_tenants`; `_other` is all the rest together.

    Prometheus sends its key as `authorization: {credentials_file: /path}` of the scrape config.
    A key that is bound to tenants cannot do this.
    """
    prepared = service.exposition.snapshot
    if prepared is None or is_stale(service, monotonic() - prepared.at):
        await service.exposition.prepare(await service.snapshots.current())
    encode, content_type = choose_encoder(accept or "")
    polled = await service.exposition.render(encode, content_type)
    state = request.app.state
    clients = getattr(state, "clients", None)
    collector = ServiceCollector(service, door, clients, abandoned=state.abandoned)
    body = polled.removesuffix(_END) + encode_metrics(collector, encode)
    return Response(body, headers={"Content-Type": content_type})


class ServiceCollector(Collector):
    """What the service says of itself, and of its servers."""

    def __init__(
        self,
        service: Service,
        door: Authenticator,
        clients: ClientConnections | None,
        *,
        abandoned: int,
    ) -> None:
        """Read from *service*, who was refused from *door*, and connections from *clients*.

        So many requests were *abandoned*.
        """
        self._service = service
        self._door = door
        self._clients = clients
        self._abandoned = abandoned

    def collect(self) -> Iterator[Metric]:
        """Everything, as of now."""
        yield from self._servers()
        yield from self._recommendations()
        yield from self._refusals()
        if self._clients is not None:
            yield from self._http_connections(self._clients)
        yield from self._service_state()

    def _servers(self) -> Iterator[Metric]:
        servers = self._service.manager.servers
        kinds: Counter[tuple[str, ...]] = Counter()
        for name, server in servers.items():
            kinds[name, "used"] = server.budget.used
            kinds[name, "budget"] = server.budget.limit
            kinds[name, "max"] = server.limits.max_connections if server.limits else 0
        yield gauge(
            "poolkeeper_server_connections",
            "Connections of all pools together, their budget, and the server's maximum.",
            ("server", "kind"),
            kinds,
        )
        up: Counter[tuple[str, ...]] = Counter(
            {(name,): int(server.is_available) for name, server in servers.items()}
        )
        yield gauge(
            "poolkeeper_server_read_only",
            "Whether the server takes no writes, by its default_transaction_read_only.",
            ("server",),
            {
                (name,): int(server.limits is not None and server.limits.read_only)
                for name, server in servers.items()
            },
        )
        guards = self._service.lock_guards.items()
        yield gauge(
            "poolkeeper_server_lock_table_ratio",
            "How much of the server's lock table was used at the last look.",
            ("server",),
            {(name,): guard.utilization for name, guard in guards},
        )
        ended = CounterMetricFamily(
            "poolkeeper_lock_holders_ended",
            "Statements and connections ended because they filled the lock table.",
            labels=("server", "ended"),
        )
        for name, guard in guards:
            for ending in BackendSignal:
                ended.add_metric((name, ending), guard.ended[ending])
        yield ended
        yield GaugeMetricFamily(
            "poolkeeper_isolation_check_age_seconds",
            "Time since the look at the isolation of the tenant that was looked at longest ago.",
            oldest_audit_age(self._service.manager),
        )
        yield gauge("poolkeeper_server_up", "Whether the server is reachable.", ("server",), up)

    def _recommendations(self) -> Iterator[Metric]:
        advising = self._service.advisor_loop
        yield CounterMetricFamily(
            "poolkeeper_recommendations",
            "Times the rule asked for another size of a pool.",
            advising.adjustments_total,
        )
        yield GaugeMetricFamily(
            "poolkeeper_recommendations_open",
            "Recommendations open now.",
            len(advising.open_recommendations),
        )

    def _refusals(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "poolkeeper_auth_failures", "Requests refused for their key.", labels=("reason",)
        )
        for reason in AuthFailure:
            failures.add_metric((reason,), self._door.failures[reason])
        yield failures
        limited = CounterMetricFamily(
            "poolkeeper_requests_limited",
            "Requests refused because a key, or an address without one, asked too often.",
            labels=("by",),
        )
        for by in ("key", "address"):
            limited.add_metric((by,), self._door.rate_limited[by])
        yield limited
        yield CounterMetricFamily(
            "poolkeeper_requests_abandoned",
            "Statements and uploads whose client disconnected before the answer.",
            self._abandoned,
        )

    def _http_connections(self, clients: ClientConnections) -> Iterator[Metric]:
        kinds: dict[tuple[str, ...], float] = {
            ("serving",): clients.serving,
            ("waiting",): clients.count - clients.serving,
            ("max",): clients.limit,
        }
        yield gauge(
            "poolkeeper_http_connections",
            "Connections of HTTP clients with a whole request, without one, and their limit.",
            ("kind",),
            kinds,
        )
        closed = CounterMetricFamily(
            "poolkeeper_http_connections_closed",
            "Connections of HTTP clients that the service closed before their clients did.",
            labels=("reason",),
        )
        for reason in CloseReason:
            closed.add_metric((reason,), clients.closed[reason])
        yield closed

    def _service_state(self) -> Iterator[Metric]:
        service = self._service
        yield GaugeMetricFamily(
            "poolkeeper_catalog_up",
            "Whether the catalog was reached when it was last used.",
            int(service.catalog.available),
        )
        poller = service.poller
        yield CounterMetricFamily("poolkeeper_polls", "Polls that ended.", poller.poll_count)
        if poller.last_report is not None and poller.last_at is not None:
            age = monotonic() - poller.last_at
            yield GaugeMetricFamily("poolkeeper_poll_age_seconds", "Since the last poll.", age)
            yield GaugeMetricFamily(
                "poolkeeper_poll_duration_seconds",
                "How long the last poll took.",
                poller.last_report.took_seconds,
            )
            yield GaugeMetricFamily(
                "poolkeeper_leak_suspects",
                "Leases held beyond the threshold at the last poll.",
                poller.last_report.leak_suspects,
            )
        yield GaugeMetricFamily(
            "poolkeeper_loop_lag_seconds",
            "How late the event loop was at worst in the last ten seconds.",
            service.lag.worst,
        )
        yield GaugeMetricFamily(
            "poolkeeper_events_pending",
            "Events kept in memory until the catalog is back.",
            len(service.audit_outbox.pending),
        )
        yield CounterMetricFamily(
            "poolkeeper_events_dropped", "Events that did not fit.", service.audit_outbox.dropped
        )
        build: Counter[tuple[str, ...]] = Counter({(__version__,): 1})
        yield gauge("poolkeeper_build_info", "Which version this is.", ("version",), build)
