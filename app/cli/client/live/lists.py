"""The lists that a screen can show: pools, nodes, and the tenants of a pool or node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRows:
    """A list: how it is fetched and shown. Those with the same title show the same.

    Attributes:
        orders: sort keys with the API's names; the first is the default.
        page: fetches a part of it: `items`, and the number of all matching items.
        opened: what opens with an item: a list, or a tenant.
    """

    title: str
    orders: Sequence[str]
    columns: Sequence[TableColumn] = field(compare=False)
    page: Callable[..., Document] = field(compare=False)
    opened: Callable[[Document], LiveRows | str] = field(compare=False)


def _tenant(item: Document) -> str:
    return str(item["tenant"])


def tenants_of_pool(pool: str) -> LiveRows:
    """The tenants of a shared pool."""
    return LiveRows(
        title=f"tenants of {pool}",
        orders=("-waiting_requests", "-wait_p99_ms", "-active_connections", "tenant"),
        columns=(
            text("TENANT", "tenant", ALWAYS),
            number("WAITING", "waiting_requests", ALWAYS),
            number("WAIT P99 MS", lambda item: item["wait"]["p99_ms"], USUALLY),
            number("ACTIVE", "active_connections", USUALLY),
            text("WAITS FOR", wait_cause, USUALLY),
            number("HOLD P95 MS", lambda item: item["hold"]["p95_ms"], USUALLY),
            number("TIMEOUTS", "timeouts", USUALLY),
            number("LEASES", "connections_acquired", WIDE),
        ),
        page=lambda client, **part: client.page(
            "/v1/stats", pool=pool, fields=_TENANT_FIELDS, **part
        ),
        opened=_tenant,
    )


def tenants_on_node(node: str) -> LiveRows:
    """The tenants of one node."""
    return LiveRows(
        title=f"tenants on node {node}",
        orders=("-longest_wait_ms", "-waiting", "-clients", "-active", "tenant"),
        columns=NODE_TENANT_COLUMNS,
        page=lambda client, **part: client.page(f"/v1/nodes/{path_segment(node)}/tenants", **part),
        opened=_tenant,
    )


def _nodes(client: ApiClient, *, sort: str, search: str, offset: int, limit: int) -> Document:
    """All nodes are few enough to sort and filter them here."""
    found = [node for node in client.items("/v1/nodes") if search in node["name"]]
    if sort == "-connections":
        found.sort(key=lambda node: -sum_of("connections", node))
    elif sort != "name":
        found.sort(key=lambda node: -node[sort[1:]])
    return {"items": found[offset : offset + limit], "matches": len(found)}


# All open and paused pools.
POOLS = LiveRows(
    title="pools",
    orders=("-waiting", "-wait_p99_ms", "-active", "-size", "pool_id"),
    columns=(
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
    ),
    page=lambda client, **part: client.page("/v1/pools", fields=_POOL_FIELDS, **part),
    opened=lambda pool: tenants_of_pool(pool["pool_id"]) if pool["shared"] else _tenant(pool),
)
NODES = LiveRows(
    title="nodes",
    orders=("-waiting", "-clients", "-connections", "name"),
    columns=NODE_COLUMNS,
    page=_nodes,
    opened=lambda node: tenants_on_node(node["name"]),
)
