"""A node as the API shows it: what was declared, what it reports, and what it may have."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from app.api.http.field_types import examples
from app.control.nodes.tracked_node import TrackedNode
from app.domain.nodes.gate import EntryState
from app.domain.nodes.node import NodeState
from app.domain.nodes.report import EntryReport
from app.domain.nodes.wait_estimate import WaitEstimate
from app.domain.nodes.weaknesses import weaknesses

# Of what an agent says.
_LONGEST_TEXT = 1000

NODE_EXAMPLE: dict[str, Any] = {
    "name": "edge-1",
    "address": "pools.example.com:6432",
    "labels": {"zone": "a"},
    "selector": {"plan": "gold"},
    "limits": {"local": 40},
    "paused": False,
    "draining": False,
    "state": "ready",
    "engine": "PgBouncer 1.25.2",
    "problem": None,
    "warnings": [],
    "vulnerable": False,
    "silent_seconds": 0.4,
    "tenants": 12,
    "clients": 85,
    "waiting": 0,
    "up_to_date": True,
    "servers": [
        {"server": "local", "allotment": 24, "committed": 20, "connections": 17, "held": 24}
    ],
    "generation": 1,
    "created_at": "2026-11-20T09:00:00Z",
    "updated_at": "2026-11-20T09:00:00Z",
}
NODE_ENTRY_EXAMPLE: dict[str, Any] = {
    "node": "edge-1",
    "node_state": "ready",
    "state": "open",
    "size": 4,
    "share": 4,
    "connections": 3,
    "active": 2,
    "clients": 12,
    "waiting": 0,
    "longest_wait_ms": 0.0,
    "estimated": True,
    "transactions_per_second": 41.0,
    "hold_ms": 12.5,
    "wait_ms": 0.2,
    "wait_p99_ms": 3.1,
    "late_share": 0.0,
}
NODE_TENANT_EXAMPLE: dict[str, Any] = {"tenant": "acme", **NODE_ENTRY_EXAMPLE}


class NodeServerView(BaseModel):
    """A node's part of a server's connection budget."""

    server: str
    allotment: int = Field(description="Connections that it may have.")
    committed: int | None = Field(
        description="Connections that its open tenants may have, as it reports; null before that."
    )
    connections: int | None = Field(description="Connections that it reports.")
    held: int = Field(
        description="Connections that no other may have, because this node may still have them."
    )


class NodeView(BaseModel):
    """A PgBouncer node."""

    model_config = examples(NODE_EXAMPLE)

    name: str
    address: str | None = Field(description="Host and port at which applications reach it.")
    labels: dict[str, str]
    selector: dict[str, str] = Field(
        description="Labels that a tenant must have to be served; empty: all with an own role."
    )
    limits: dict[str, int] = Field(description="The most connections that it may have, by server.")
    paused: bool = Field(description="Whether its clients wait.")
    draining: bool = Field(description="Whether it accepts no new clients.")
    state: NodeState = Field(
        description="`joining`: no configuration is in force yet. `stale`: no report for 10 s. "
        "`gone`: for 60 s, and Postgres shows none of its connections."
    )
    engine: str | None = Field(description="Name and version of its pooler; null before a report.")
    problem: str | None = Field(
        description="What its agent cannot do, or which of its servers is unavailable to this "
        "service; null when all is well."
    )
    warnings: list[str] = Field(description="Known weaknesses of that version.")
    vulnerable: bool = Field(description="Whether an attacker can use one of them.")
    silent_seconds: float | None = Field(description="Time since the last report; null: none yet.")
    tenants: int = Field(description="Tenants that it serves.")
    clients: int = Field(description="Connections of applications.")
    waiting: int = Field(description="Those of them that wait for a connection.")
    up_to_date: bool = Field(description="Whether it has applied the latest configuration.")
    servers: list[NodeServerView]
    generation: int = Field(description="Version of the declaration, also the ETag.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, node: TrackedNode, problem: str) -> Self:
        """*problem*: what keeps it from its work; empty: nothing."""
        declared, latest = node.declared, node.latest
        report = latest.report if latest else None
        configuration = node.configuration
        return cls(
            **declared.spec.as_dict(),
            paused=declared.paused,
            draining=declared.draining,
            state=node.state,
            engine=report.engine[:_LONGEST_TEXT] if report else None,
            problem=problem[:_LONGEST_TEXT] or None,
            warnings=list(weaknesses(report.engine)) if report else [],
            vulnerable=bool(node.vulnerabilities),
            silent_seconds=None if node.silence is None else round(node.silence, 1),
            tenants=len(node.entries),
            clients=latest.sums.clients if latest else 0,
            waiting=latest.sums.waiting if latest else 0,
            up_to_date=report is not None
            and configuration is not None
            and report.version == configuration.version,
            servers=[_server(node, server) for server in sorted(node.commitments)],
            generation=declared.generation,
            created_at=declared.created_at,
            updated_at=declared.updated_at,
        )


class NodeEntryView(BaseModel):
    """A tenant on one node, as that reported it last."""

    model_config = examples(NODE_ENTRY_EXAMPLE)

    node: str
    node_state: NodeState
    state: EntryState = Field(
        description="`closed`: its clients wait until others have had their turn. `closing`: its "
        "last transactions end. `paused`: by a person."
    )
    size: int = Field(description="The most connections that it may have there, as is in force.")
    share: int = Field(
        description="What it was given there of its `max_size`. 0: its clients wait for a turn, or "
        "it has no credential."
    )
    connections: int
    active: int = Field(description="Connections in a transaction.")
    clients: int = Field(description="Connections of applications.")
    waiting: int = Field(description="Those of them that wait for a connection.")
    longest_wait_ms: float = Field(description="How long the first of them has waited.")
    estimated: bool = Field(
        description="True: `wait_p99_ms` and `late_share` are estimated, because poolers count "
        "sums and no single transaction. False: nothing that follows is known."
    )
    transactions_per_second: float | None = Field(
        description="Of the last minute, or since the tenant was idle there."
    )
    hold_ms: float | None = Field(
        description="Mean time of a transaction in that time, without the wait."
    )
    wait_ms: float | None = Field(description="Mean time that it waited for a connection.")
    wait_p99_ms: float | None = Field(description="What one of a hundred waits exceeds; estimated.")
    late_share: float | None = Field(
        description="Share that waited longer than the advisor tolerates, 0 to 1; estimated."
    )

    @classmethod
    def of(cls, node: TrackedNode, tenant: str, *, patience: float) -> Self | None:
        """None while the node has not reported it; who waits over *patience* seconds is late."""
        latest = node.latest
        entry = latest.entries.get(tenant) if latest else None
        return None if entry is None else cls(**_entry(node, entry, patience))


class NodeTenantView(NodeEntryView):
    """One of the tenants of a node."""

    model_config = examples(NODE_TENANT_EXAMPLE)

    tenant: str

    @classmethod
    def of_entry(cls, node: TrackedNode, entry: EntryReport, *, patience: float) -> Self:
        """Who waits over *patience* seconds is late."""
        return cls(tenant=entry.name, **_entry(node, entry, patience))


def _entry(node: TrackedNode, entry: EntryReport, patience: float) -> dict[str, Any]:
    load = node.reports.load(entry.name)
    waits = WaitEstimate(load, entry.size) if load else None
    return {
        "node": node.name,
        "node_state": node.state,
        "state": entry.state,
        "size": entry.size,
        "share": node.sizes.latest(entry.name),
        "connections": entry.connections,
        "active": entry.in_use,
        "clients": entry.clients,
        "waiting": entry.waiting,
        "longest_wait_ms": entry.longest_wait * 1000,
        "estimated": load is not None,
        "transactions_per_second": load and load.arrivals,
        "hold_ms": load and load.hold * 1000,
        "wait_ms": load and load.wait * 1000,
        "wait_p99_ms": waits and waits.quantile(0.99) * 1000,
        "late_share": waits and waits.late_share(patience),
    }


def _server(node: TrackedNode, server: str) -> NodeServerView:
    commitment = node.commitments[server]
    reported = node.latest.report.servers.get(server) if node.latest else None
    return NodeServerView(
        server=server,
        allotment=commitment.current,
        committed=reported.committed if reported else None,
        connections=reported.connected if reported else None,
        held=commitment.liability,
    )
