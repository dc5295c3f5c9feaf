"""Metrics of the service itself and of its servers, read at each scrape.

Metrics of pools and tenants, as of the last poll, are in `pool_metrics.py`, those of nodes in
`node_metrics.py`. Scrapes query no server.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import State

from app import __version__
from app.api.auth.authenticator import Authenticator, AuthFailure
from app.api.http.client_connections import ClientConnections, CloseReason
from app.api.telemetry.node_metrics import node_metrics
from app.api.telemetry.pool_metrics import counter, gauge
from app.catalog.catalog import Catalog
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.audit_outbox import AuditOutbox
from app.control.leadership.election import Election
from app.control.monitoring.isolation_audit import oldest_audit_age
from app.control.monitoring.lock_guard import LockGuard
from app.control.monitoring.poller import Poller
from app.control.nodes.fleet import Fleet
from app.domain.lock_table import BackendSignal
from app.pools.event_loop_lag import EventLoopLag
from app.pools.manager import TenantPoolManager


@dataclass(frozen=True, kw_only=True, eq=False)
class ServiceCollector(Collector):
    """The service's own metrics, and its servers'.

    Attributes:
        state: of the application, with its authenticator, clients and abandoned requests.
    """

    state: State
    manager: TenantPoolManager
    lock_guards: Mapping[str, LockGuard]
    advisor: AdvisorLoop
    catalog: Catalog
    poller: Poller
    lag: EventLoopLag
    outbox: AuditOutbox
    election: Election
    fleet: Fleet

    def collect(self) -> Iterator[Metric]:
        yield from self._servers()
        yield from node_metrics(self.fleet)
        yield from self._recommendations()
        yield from self._refusals()
        clients = getattr(self.state, "clients", None)
        if clients is not None:
            yield from self._http_connections(clients)
        yield from self._service_state()

    def _servers(self) -> Iterator[Metric]:
        servers, guards = self.manager.servers.items(), self.lock_guards.items()
        connections: dict[tuple[str, ...], float] = {}
        for name, server in servers:
            connections[name, "open"] = server.used
            connections[name, "nodes"] = server.on_nodes
            connections[name, "budget"] = server.limit
            connections[name, "max"] = server.limits.max_connections if server.limits else 0
        yield gauge(
            "poolkeeper_server_connections",
            "Connections open in pools, left to nodes, the budget of both, and max_connections.",
            ("server", "kind"),
            connections,
        )
        yield gauge(
            "poolkeeper_server_up",
            "Whether the server is reachable.",
            ("server",),
            {(name,): server.is_available for name, server in servers},
        )
        yield gauge(
            "poolkeeper_server_read_only",
            "Whether the server's default_transaction_read_only is on.",
            ("server",),
            {(name,): bool(server.limits and server.limits.read_only) for name, server in servers},
        )
        yield gauge(
            "poolkeeper_server_lock_table_ratio",
            "Share of the server's lock table in use when last measured.",
            ("server",),
            {(name,): guard.utilization for name, guard in guards},
        )
        yield counter(
            "poolkeeper_lock_holders_ended",
            "Statements and connections ended because they filled the lock table.",
            ("server", "ended"),
            {(name, how): guard.ended[how] for name, guard in guards for how in BackendSignal},
        )
        yield gauge(
            "poolkeeper_unexplained_backends",
            "Connections of tenants' roles that are neither this service's nor a node's.",
            ("server",),
            {(name,): self.fleet.unexplained(name) for name, _ in servers},
        )
        yield GaugeMetricFamily(
            "poolkeeper_isolation_check_age_seconds",
            "Time since the oldest of the tenants' latest isolation audits.",
            oldest_audit_age(self.manager),
        )

    def _recommendations(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "poolkeeper_recommendations",
            "Recommendations made, those applied at once included.",
            self.advisor.adjustments_total,
        )
        yield GaugeMetricFamily(
            "poolkeeper_recommendations_open",
            "Open recommendations.",
            len(self.advisor.open_recommendations),
        )

    def _refusals(self) -> Iterator[Metric]:
        authenticator: Authenticator = self.state.authenticator
        yield counter(
            "poolkeeper_auth_failures",
            "Requests refused because of their API key or password.",
            ("reason",),
            {(reason,): authenticator.failures[reason] for reason in AuthFailure},
        )
        yield counter(
            "poolkeeper_requests_limited",
            "Requests refused by the rate limit of a key, a credential, or an address with no key.",
            ("by",),
            {(by,): authenticator.rate_limited[by] for by in ("key", "credential", "address")},
        )
        yield CounterMetricFamily(
            "poolkeeper_requests_abandoned",
            "Statements and uploads whose client disconnected before the response.",
            self.state.abandoned,
        )

    def _http_connections(self, clients: ClientConnections) -> Iterator[Metric]:
        yield gauge(
            "poolkeeper_http_connections",
            "Client connections with a complete request, without one, and their limit.",
            ("kind",),
            {
                ("serving",): clients.serving,
                ("waiting",): clients.count - clients.serving,
                ("max",): clients.limit,
            },
        )
        yield counter(
            "poolkeeper_http_connections_closed",
            "Client connections that the service closed first.",
            ("reason",),
            {(reason,): clients.closed[reason] for reason in CloseReason},
        )

    def _service_state(self) -> Iterator[Metric]:
        poller, instance = self.poller, self.election.instance
        yield gauge(
            "poolkeeper_leader",
            "Whether this instance is active and its leadership has not expired.",
            ("instance_id", "url"),
            {(instance.id, instance.url or ""): self.election.trust.is_valid()},
        )
        yield GaugeMetricFamily(
            "poolkeeper_leadership_epoch",
            "Epoch of the active instance; it grows each time that an instance becomes active.",
            self.election.epoch or 0,
        )
        yield CounterMetricFamily(
            "poolkeeper_failovers",
            "Number of times that an instance became active after another one had failed.",
            self.election.failovers,
        )
        yield GaugeMetricFamily(
            "poolkeeper_catalog_up",
            "Whether the catalog was reached when it was last used, and takes writes.",
            int(self.catalog.available and self.catalog.write_problem is None),
        )
        yield CounterMetricFamily("poolkeeper_polls", "Finished polls.", poller.poll_count)
        if poller.last_report is not None and poller.last_at is not None:
            age = monotonic() - poller.last_at
            yield GaugeMetricFamily("poolkeeper_poll_age_seconds", "Time since the last poll.", age)
            yield GaugeMetricFamily(
                "poolkeeper_poll_duration_seconds",
                "How long the last poll took.",
                poller.last_report.took_seconds,
            )
            yield GaugeMetricFamily(
                "poolkeeper_leak_suspects",
                "Leases held beyond the leak threshold at the last poll.",
                poller.last_report.leak_suspects,
            )
        yield GaugeMetricFamily(
            "poolkeeper_loop_lag_seconds",
            "The event loop's longest delay in the last ten seconds.",
            self.lag.worst,
        )
        yield GaugeMetricFamily(
            "poolkeeper_events_pending",
            "Audit events kept in memory until the catalog is back.",
            len(self.outbox.pending),
        )
        yield CounterMetricFamily(
            "poolkeeper_events_dropped",
            "Audit events lost because memory for them was full.",
            self.outbox.dropped,
        )
        yield gauge(
            "poolkeeper_build_info", "The service's version.", ("version",), {(__version__,): 1}
        )
