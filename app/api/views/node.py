"""A node in the API: its declaration, its report, and its allotments."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from app.control.nodes.fleet import Fleet
from app.control.nodes.tracked_node import TrackedNode
from app.domain.nodes.gate import EntryState
from app.domain.nodes.node import NodeState
from app.domain.nodes.report import EntryReport
from app.domain.nodes.wait_estimate import WaitEstimate
from app.domain.nodes.weaknesses import weaknesses

# The longest text from an agent.
_LONGEST_TEXT = 1000


class NodeServerView(BaseModel):
    """A node's part of a server's connection budget."""

    server: str = Field(examples=["local"])
    allotment: int = Field(description="Connections that it may have.", examples=[24])
    committed: int | None = Field(
        description="Connections that its open tenants may have, as it reports; null before that.",
        examples=[20],
    )
    connections: int | None = Field(description="Connections that it reports.", examples=[17])
    held: int = Field(
        description="Connections that no other may have, because this node may still have them.",
        examples=[24],
    )


class NodeView(BaseModel):
    """A PgBouncer node."""

    name: str = Field(examples=["edge-1"])
    address: str | None = Field(
        description="Host and port at which applications reach it.",
        examples=["pools.example.com:6432"],
    )
    labels: dict[str, str] = Field(examples=[{"zone": "a"}])
    selector: dict[str, str] = Field(
        description="Labels that a tenant must have to be served; empty: all tenants with their "
        "own role.",
        examples=[{"plan": "gold"}],
    )
    limits: dict[str, int] = Field(
        description="The most connections that it may have, by server.", examples=[{"local": 40}]
    )
    paused: bool = Field(description="Whether its clients wait.", examples=[False])
    draining: bool = Field(description="Whether it accepts no new clients.", examples=[False])
    state: NodeState = Field(
        description="`joining`: no configuration is in force yet. `stale`: no report for 10 s. "
        "`gone`: for 60 s, and Postgres shows none of its connections.",
        examples=["ready"],
    )
    engine: str | None = Field(
        description="Name and version of its pooler; null before a report.",
        examples=["PgBouncer 1.25.2"],
    )
    agent: str | None = Field(
        description="Version of its agent; null before a report.", examples=["0.1.0"]
    )
    problem: str | None = Field(
        description="What its agent cannot do, why this service cannot run that of node `local`, "
        "for how long it has not applied its configuration, or which of its servers is unavailable "
        "to this service; null when all is well.",
        examples=[None],
    )
    warnings: list[str] = Field(
        description="Known weaknesses of the pooler's version, and what to upgrade if agent and "
        "service differ in their minor version.",
        examples=[[]],
    )
    vulnerable: bool = Field(
        description="Whether an attacker can use one of the weaknesses.", examples=[False]
    )
    silent_seconds: float | None = Field(
        description="Time since the last report; null: none yet.", examples=[0.4]
    )
    tenants: int = Field(description="Tenants that it serves.", examples=[12])
    clients: int = Field(description="Connections of applications.", examples=[85])
    waiting: int = Field(description="Those of them that wait for a connection.", examples=[0])
    up_to_date: bool = Field(description="Whether it has applied the latest configuration.")
    servers: list[NodeServerView]
    generation: int = Field(description="Version of the declaration, also the ETag.")
    created_at: datetime = Field(examples=["2026-11-20T09:00:00Z"])
    updated_at: datetime = Field(examples=["2026-11-20T09:00:00Z"])

    @classmethod
    def of(cls, node: TrackedNode, fleet: Fleet) -> Self:
        declared, latest = node.declared, node.latest
        report = latest.report if latest else None
        configuration = node.configuration
        return cls(
            **asdict(declared) | asdict(declared.spec),
            state=node.state,
            engine=report.engine[:_LONGEST_TEXT] if report else None,
            agent=(report.agent[:_LONGEST_TEXT] or None) if report else None,
            problem=fleet.problem(node)[:_LONGEST_TEXT] or None,
            warnings=[*weaknesses(report.engine), *filter(None, [node.version_warning])]
            if report
            else [],
            vulnerable=bool(node.vulnerabilities),
            silent_seconds=None if node.silence is None else round(node.silence, 1),
            tenants=len(node.entries),
            clients=latest.sums.clients if latest else 0,
            waiting=latest.sums.waiting if latest else 0,
            up_to_date=report is not None
            and configuration is not None
            and report.version == configuration.version,
            servers=[_server(node, server) for server in sorted(node.commitments)],
        )


class NodeEntryView(BaseModel):
    """A tenant on one node, as last reported."""

    node: str = Field(examples=["edge-1"])
    node_state: NodeState = Field(examples=["ready"])
    state: EntryState = Field(
        description="`closed`: its clients wait until others have had their turn. `closing`: its "
        "last transactions end. `paused`: by a person.",
        examples=["open"],
    )
    size: int = Field(
        description="The most connections that it may have there, as now in force.", examples=[4]
    )
    share: int = Field(
        description="Its share of `max_size` there. 0: its clients wait for a turn, or "
        "it has no credential.",
        examples=[4],
    )
    connections: int = Field(examples=[3])
    active: int = Field(description="Connections in a transaction.", examples=[2])
    clients: int = Field(description="Connections of applications.", examples=[12])
    waiting: int = Field(description="Those of them that wait for a connection.", examples=[0])
    longest_wait_ms: float = Field(
        description="How long the first of them has waited.", examples=[0.0]
    )
    estimated: bool = Field(
        description="True: `wait_p99_ms` and `late_share` are estimated, because poolers count "
        "only sums. False: the following fields are unknown."
    )
    transactions_per_second: float | None = Field(
        description="In the last minute, or since the tenant was idle there.", examples=[41.0]
    )
    hold_ms: float | None = Field(
        description="Mean time of a transaction in that time, without the wait.", examples=[12.5]
    )
    wait_ms: float | None = Field(
        description="Mean time that it waited for a connection.", examples=[0.2]
    )
    wait_p99_ms: float | None = Field(
        description="Estimated 99th percentile of the waits.", examples=[3.1]
    )
    late_share: float | None = Field(
        description="Share that waited longer than the advisor tolerates, 0 to 1; estimated.",
        examples=[0.0],
    )

    @classmethod
    def of(cls, node: TrackedNode, entry: EntryReport, *, patience: float, **more: Any) -> Self:
        """Callers that wait over *patience* seconds are late; *more*: fields of a subclass."""
        load = node.reports.load(entry.name)
        waits = WaitEstimate(load, entry.size) if load else None
        return cls(
            node=node.name,
            node_state=node.state,
            state=entry.state,
            size=entry.size,
            share=node.sizes.latest(entry.name),
            connections=entry.connections,
            active=entry.in_use,
            clients=entry.clients,
            waiting=entry.waiting,
            longest_wait_ms=entry.longest_wait * 1000,
            estimated=load is not None,
            transactions_per_second=load.arrivals if load else None,
            hold_ms=load.hold * 1000 if load else None,
            wait_ms=load.wait * 1000 if load else None,
            wait_p99_ms=waits.quantile(0.99) * 1000 if waits else None,
            late_share=waits.late_share(patience) if waits else None,
            **more,
        )


class NodeTenantView(NodeEntryView):
    """One of the tenants of a node."""

    tenant: str = Field(examples=["acme"])


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
