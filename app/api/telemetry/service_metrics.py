"""Metrics of the service itself and of its servers, read at the moment of a scrape.

Metrics of pools and tenants, as of the last poll, are in `prometheus.py`. No server is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from time import monotonic

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import State

from app import __version__
from app.api.auth.authenticator import Authenticator, AuthFailure
from app.api.http.client_connections import ClientConnections, CloseReason
from app.api.telemetry.prometheus import gauge
from app.catalog.catalog import Catalog
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.audit.outbox import AuditOutbox
from app.control.monitoring.isolation_audit import oldest_audit_age
from app.control.monitoring.lock_guard import LockGuard
from app.control.monitoring.poller import Poller
from app.domain.lock_table import BackendSignal
from app.pools.event_loop_lag import EventLoopLag
from app.pools.manager import TenantPoolManager


class ServiceCollector(Collector):
    """The service's own metrics, and its servers'."""

    def __init__(
        self,
        state: State,
        *,
        manager: TenantPoolManager,
        lock_guards: Mapping[str, LockGuard],
        advisor: AdvisorLoop,
        catalog: Catalog,
        poller: Poller,
        lag: EventLoopLag,
        outbox: AuditOutbox,
    ) -> None:
        """*state*: the application's, with its authenticator, clients and abandoned requests."""
        self._state = state
        self._manager = manager
        self._lock_guards = lock_guards
        self._advisor = advisor
        self._catalog = catalog
        self._poller = poller
        self._lag = lag
        self._outbox = outbox

    def collect(self) -> Iterator[Metric]:
        yield from self._servers()
        yield from self._recommendations()
        yield from self._refusals()
        clients = getattr(self._state, "clients", None)
        if clients is not None:
            yield from self._http_connections(clients)
        yield from self._service_state()

    def _servers(self) -> Iterator[Metric]:
        servers = self._manager.servers
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
        guards = self._lock_guards.items()
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
            oldest_audit_age(self._manager),
        )
        yield gauge("poolkeeper_server_up", "Whether the server is reachable.", ("server",), up)

    def _recommendations(self) -> Iterator[Metric]:
        advising = self._advisor
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
        authenticator: Authenticator = self._state.authenticator
        failures = CounterMetricFamily(
            "poolkeeper_auth_failures", "Requests refused for their key.", labels=("reason",)
        )
        for reason in AuthFailure:
            failures.add_metric((reason,), authenticator.failures[reason])
        yield failures
        limited = CounterMetricFamily(
            "poolkeeper_requests_limited",
            "Requests refused because a key, or an address without one, asked too often.",
            labels=("by",),
        )
        for by in ("key", "address"):
            limited.add_metric((by,), authenticator.rate_limited[by])
        yield limited
        yield CounterMetricFamily(
            "poolkeeper_requests_abandoned",
            "Statements and uploads whose client disconnected before the answer.",
            self._state.abandoned,
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
        yield GaugeMetricFamily(
            "poolkeeper_catalog_up",
            "Whether the catalog was reached when it was last used.",
            int(self._catalog.available),
        )
        poller = self._poller
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
            self._lag.worst,
        )
        yield GaugeMetricFamily(
            "poolkeeper_events_pending",
            "Events kept in memory until the catalog is back.",
            len(self._outbox.pending),
        )
        yield CounterMetricFamily(
            "poolkeeper_events_dropped", "Events that did not fit.", self._outbox.dropped
        )
        build: Counter[tuple[str, ...]] = Counter({(__version__,): 1})
        yield gauge("poolkeeper_build_info", "Which version this is.", ("version",), build)
