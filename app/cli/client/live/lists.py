"""The lists that a screen can show: pools, nodes, and the tenants of a pool or node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from app.cli.client.api_client import ApiClient, Document, path_segment
from app.cli.client.nodes import COLUMNS as NODE_COLUMNS
from app.cli.client.nodes import TENANT_COLUMNS as NODE_TENANT_COLUMNS
from app.cli.client.nodes import sum_of
from app.cli.client.table import (
    ALWAYS,
    USUALLY,
    VERY_WIDE,
    WIDE,
    TableColumn,
    number,
    pool_state,
    prose,
    text,
    wait_cause,
    waiting,
)

_POOL_FIELDS = (
    "pool_id,tenant,shared,server,state,pause,desired,size,active,waiting,waiting_on_nodes,wait_p99_ms,tenants,"
    "leak_suspects,waits_for,recommendation"
)
_TENANT_FIELDS = (
    "tenant,server,pool_state,active_connections,waiting_requests,waits_for,wait,hold,timeouts,"
    "connections_acquired"
)


class LiveRows(Protocol):
    """How a list is fetched and shown; equal ones show the same."""

    @property
    def title(self) -> str: ...

    @property
    def orders(self) -> Sequence[str]:
        """Sort keys with the API's names; the first is the default."""

    @property
    def columns(self) -> Sequence[TableColumn]: ...

    def page(
        self, client: ApiClient, *, sort: str, search: str, offset: int, limit: int
    ) -> Document:
        """A part of it: `items`, and the number of all matching items."""

    def opened(self, item: Document) -> LiveRows | str:
        """What opens with an item: a list, or a tenant."""


@dataclass(frozen=True, slots=True)
class PoolRows:
    """All open and paused pools."""

    title: ClassVar[str] = "pools"
    orders: ClassVar[Sequence[str]] = ("-waiting", "-wait_p99_ms", "-active", "-size", "pool_id")
    columns: ClassVar[Sequence[TableColumn]] = (
        text("POOL", "pool_id", ALWAYS),
        prose("STATE", pool_state, ALWAYS),
        number("WAITING", waiting("waiting"), ALWAYS),
        number("WAIT P99 MS", "wait_p99_ms", USUALLY),
        number("ACTIVE", "active", USUALLY),
        number("SIZE", "size", USUALLY),
        number("MAX", lambda pool: pool["desired"]["max_size"], USUALLY),
        text("WAITS FOR", wait_cause, USUALLY),
        number("→ MAX", lambda pool: (pool["recommendation"] or {}).get("new_size"), WIDE),
        number("LEAKS", lambda pool: len(pool["leak_suspects"]) or None, WIDE),
        prose("REASON", lambda pool: (pool["recommendation"] or {}).get("reason"), WIDE),
        number("TENANTS", "tenants", VERY_WIDE),
        text("SERVER", "server", VERY_WIDE),
    )

    def page(self, client: ApiClient, **part: Any) -> Document:
        return client.page("/v1/pools", fields=_POOL_FIELDS, **part)

    def opened(self, item: Document) -> LiveRows | str:
        return PoolTenantRows(item["pool_id"]) if item["shared"] else str(item["tenant"])


@dataclass(frozen=True, slots=True)
class PoolTenantRows:
    """The tenants of a shared pool."""

    pool: str
    orders: ClassVar[Sequence[str]] = (
        "-waiting_requests",
        "-wait_p99_ms",
        "-active_connections",
        "tenant",
    )
    columns: ClassVar[Sequence[TableColumn]] = (
        text("TENANT", "tenant", ALWAYS),
        number("WAITING", "waiting_requests", ALWAYS),
        number("WAIT P99 MS", lambda item: item["wait"]["p99_ms"], USUALLY),
        number("ACTIVE", "active_connections", USUALLY),
        text("WAITS FOR", wait_cause, USUALLY),
        number("HOLD P95 MS", lambda item: item["hold"]["p95_ms"], USUALLY),
        number("TIMEOUTS", "timeouts", USUALLY),
        number("LEASES", "connections_acquired", WIDE),
    )

    @property
    def title(self) -> str:
        return f"tenants of {self.pool}"

    def page(self, client: ApiClient, **part: Any) -> Document:
        return client.page("/v1/stats", pool=self.pool, fields=_TENANT_FIELDS, **part)

    def opened(self, item: Document) -> LiveRows | str:
        return str(item["tenant"])


@dataclass(frozen=True, slots=True)
class NodeRows:
    """All nodes: few enough to sort and filter them here."""

    title: ClassVar[str] = "nodes"
    orders: ClassVar[Sequence[str]] = ("-waiting", "-clients", "-connections", "name")
    columns: ClassVar[Sequence[TableColumn]] = NODE_COLUMNS

    def page(
        self, client: ApiClient, *, sort: str, search: str, offset: int, limit: int
    ) -> Document:
        found = [node for node in client.items("/v1/nodes") if search in node["name"]]
        if sort == "-connections":
            found.sort(key=lambda node: -sum_of("connections", node))
        elif sort != "name":
            found.sort(key=lambda node: -node[sort[1:]])
        return {"items": found[offset : offset + limit], "matches": len(found)}

    def opened(self, item: Document) -> LiveRows | str:
        return NodeTenantRows(item["name"])


@dataclass(frozen=True, slots=True)
class NodeTenantRows:
    """The tenants of one node."""

    node: str
    orders: ClassVar[Sequence[str]] = (
        "-longest_wait_ms",
        "-waiting",
        "-clients",
        "-active",
        "tenant",
    )
    columns: ClassVar[Sequence[TableColumn]] = NODE_TENANT_COLUMNS

    @property
    def title(self) -> str:
        return f"tenants on node {self.node}"

    def page(self, client: ApiClient, **part: Any) -> Document:
        return client.page(f"/v1/nodes/{path_segment(self.node)}/tenants", **part)

    def opened(self, item: Document) -> LiveRows | str:
        return str(item["tenant"])
