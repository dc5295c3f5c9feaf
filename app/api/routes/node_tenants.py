"""The tenants of one node: which of them may have connections there now, and who waits."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.api.http.authentication import REQUIRE_READ_ALL
from app.api.http.dependencies import AdvisorDep, CursorQuery, LimitQuery
from app.api.http.paging import Matches, NextCursor, OffsetQuery, Order, SearchQuery
from app.api.http.strict_route import StrictRoute
from app.api.routes.nodes import NodeDep
from app.api.views.node import NodeTenantView
from app.domain.nodes.report import EntryReport

router = APIRouter(prefix="/v1/nodes", tags=["nodes"], route_class=StrictRoute)


class NodeTenantOrder(StrEnum):
    """Sort keys; a minus puts the largest first."""

    TENANT = "tenant"
    LONGEST_WAIT = "-longest_wait_ms"
    MOST_WAITING = "-waiting"
    MOST_CLIENTS = "-clients"
    MOST_ACTIVE = "-active"


_RANKS: dict[str, Callable[[EntryReport], float]] = {
    "tenant": lambda _: 0.0,
    "longest_wait_ms": lambda entry: entry.longest_wait,
    "waiting": lambda entry: entry.waiting,
    "clients": lambda entry: entry.clients,
    "active": lambda entry: entry.in_use,
}


class NodeTenantList(BaseModel):
    """A page of a node's tenants."""

    matches: Matches
    items: list[NodeTenantView]
    next_cursor: NextCursor


@router.get(
    "/{node}/tenants",
    dependencies=REQUIRE_READ_ALL,
    summary="List the tenants of a node",
)
async def list_node_tenants(
    node: NodeDep,
    advisor: AdvisorDep,
    *,
    sort: Annotated[
        NodeTenantOrder, Query(description="Sort key; ties are sorted by tenant.")
    ] = NodeTenantOrder.LONGEST_WAIT,
    search: SearchQuery = "",
    limit: LimitQuery = 50,
    offset: OffsetQuery = 0,
    cursor: CursorQuery = None,
) -> NodeTenantList:
    """Lists the tenants in a node's last report; none before its first report.

    The numbers are at most a second old while the node is `ready`. Values marked `estimated` come
    from sums of the last minute.
    """
    entries = node.latest.entries if node.latest else {}
    found = [entry for name, entry in entries.items() if search in name]
    order = Order(sort.value, _RANKS[sort.lstrip("-")], lambda entry: entry.name)
    page, next_cursor = order.page(found, cursor=cursor, offset=offset, limit=limit)
    patience = advisor.settings.demand.patience_seconds
    return NodeTenantList(
        matches=len(found),
        items=[
            NodeTenantView.of(node, entry, patience=patience, tenant=entry.name) for entry in page
        ],
        next_cursor=next_cursor,
    )
