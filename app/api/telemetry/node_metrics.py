"""Metrics of nodes for Prometheus, as last reported: 17 series a node, and 3 for each server.

Labels are names of nodes and servers and our own words, never tenants. Only the API has estimates
of tenants on nodes.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from app.api.telemetry.pool_metrics import gauge
from app.control.nodes.fleet import Fleet
from app.control.nodes.tracked_node import TrackedNode
from app.domain.nodes.gate import EntryState
from app.domain.nodes.node import NodeState

Values = dict[tuple[str, ...], float]


def node_metrics(fleet: Fleet) -> Iterator[Metric]:
    nodes = fleet.nodes
    heard = {name: node.latest for name, node in nodes.items() if node.latest}
    yield gauge(
        "poolkeeper_node_state",
        "The state of each node: 1 for the one that it has.",
        ("node", "state"),
        {(name, state): node.state is state for name, node in nodes.items() for state in NodeState},
    )
    yield gauge(
        "poolkeeper_node_silent_seconds",
        "Time since the latest report of each node.",
        ("node",),
        {(name,): node.silence for name, node in nodes.items() if node.silence is not None},
    )
    yield gauge(
        "poolkeeper_node_problem",
        "Whether each node reports a problem that somebody must solve.",
        ("node",),
        {
            (name,): bool(node.problem)
            for name, node in nodes.items()
            if node.latest or node.failure
        },
    )
    yield gauge(
        "poolkeeper_node_outdated",
        "Whether each node is reachable, but has not applied a configuration within 30 s.",
        ("node",),
        {(name,): node.is_outdated for name, node in nodes.items()},
    )
    yield gauge(
        "poolkeeper_node_vulnerabilities",
        "Known vulnerabilities of the version of PgBouncer that each node runs.",
        ("node",),
        {(name,): len(nodes[name].vulnerabilities) for name in heard},
    )
    yield gauge(
        "poolkeeper_node_clients",
        "Clients of each node: connected, waiting, and waiting for their tenant's turn (queued).",
        ("node", "kind"),
        {
            (name, kind): count
            for name, each in heard.items()
            for kind, count in (
                ("connected", each.sums.clients),
                ("waiting", each.sums.waiting),
                ("queued", each.sums.queued),
            )
        },
    )
    yield gauge(
        "poolkeeper_node_longest_wait_seconds",
        "The longest current wait of a client of each node; without paused tenants.",
        ("node",),
        {(name,): each.sums.longest_wait for name, each in heard.items()},
    )
    yield gauge(
        "poolkeeper_node_tenants",
        "Tenants of each node, by whether they may have connections now.",
        ("node", "state"),
        {
            (name, state): each.sums.states.get(state, 0)
            for name, each in heard.items()
            for state in EntryState
        },
    )
    yield gauge(
        "poolkeeper_node_connections",
        "Connections of each node: open, allotted, and reserved because it may still have them.",
        ("node", "server", "kind"),
        _connections(nodes),
    )


def _connections(nodes: dict[str, TrackedNode]) -> Values:
    found: Values = {}
    for name, node in nodes.items():
        reported = node.latest.report.servers if node.latest else {}
        for server, commitment in node.commitments.items():
            found[name, server, "allotment"] = commitment.current
            found[name, server, "held"] = commitment.liability
            if server in reported:
                found[name, server, "open"] = reported[server].connected
    return found
