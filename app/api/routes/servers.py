"""The declared servers: their state, and where their connections are."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import CursorQuery, FleetDep, LimitQuery, ManagerDep, PrincipalDep
from app.api.http.paging import NextCursor, page_of_names
from app.api.http.strict_route import StrictRoute
from app.api.views.pool import PoolSummary, accessible_pools
from app.control.nodes.fleet import Fleet
from app.control.time_slices import in_slices
from app.domain.errors import ServerNotFound
from app.domain.server_state import ServerState
from app.pools.manager import TenantPoolManager
from app.pools.servers.server import Server

router = APIRouter(prefix="/v1/servers", tags=["servers"], route_class=StrictRoute)


class ServerBudgetView(BaseModel):
    """The connections that all pools on a server may have together."""

    limit: int = Field(
        description="Maximum number of connections of all pools; 0 before the first contact.",
        examples=[83],
    )
    used: int = Field(
        description="Connections that are open, opening, closing or lost.", examples=[3]
    )
    lost: int = Field(
        description="Broken connections that Postgres may still have. They count in `used` until "
        "Postgres shows that they have ended, which cannot be seen while the server is "
        "unavailable.",
        examples=[0],
    )
    nodes: int = Field(
        description="Connections of the limit that nodes may have, used there or not. This and "
        "`used` exceed the limit together only after the limit was lowered.",
        examples=[0],
    )
    nodes_open: int = Field(
        description="How many of these are open, as each node last reported.", examples=[0]
    )
    kept_free: int | None = Field(
        description="Connections of max_connections that pools may not use: reserved by Postgres, "
        "used by the service itself, or left to others.",
        examples=[17],
    )
    contended: bool = Field(
        description="Whether a pool, or clients of a node, wait for a connection of the budget.",
        examples=[False],
    )


class ServerView(BaseModel):
    """A declared server."""

    name: str = Field(examples=["local"])
    host: str = Field(examples=["127.0.0.1"])
    port: int = Field(examples=[5432])
    state: ServerState
    version: str | None = Field(
        description="Postgres version; null before the first contact.", examples=["18.6"]
    )
    max_connections: int | None = Field(examples=[100])
    read_only: bool | None = Field(
        description="Whether the server accepts no writes: `default_transaction_read_only` is on "
        "for the server, its database, all roles or the service's role, as providers set it while "
        "a disk is full. Null before the first contact.",
        examples=[False],
    )
    budget: ServerBudgetView
    pools: list[PoolSummary]
    waiting_on_nodes: int = Field(
        description="Clients that wait on nodes for connections of this server; `waiting` of pools "
        "does not count them.",
        examples=[0],
    )
    last_error: str | None = Field(
        description="Why the server is unavailable or, while it is available, why no new "
        "connection can be opened; open connections keep working. Null when all is well.",
        examples=[None],
    )


class ServerList(BaseModel):
    """A page of servers."""

    items: list[ServerView]
    next_cursor: NextCursor


@router.get("", dependencies=[REQUIRE_READ], summary="List servers")
async def list_servers(
    manager: ManagerDep,
    fleet: FleetDep,
    principal: PrincipalDep,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> ServerList:
    """Lists declared servers by name. Works while servers and the catalog are unreachable."""
    page, next_cursor = page_of_names(manager.servers, cursor, limit)
    on_nodes = _waiting_on_nodes(manager, fleet, principal)
    items = [
        await _show(
            manager, fleet, manager.servers[name], principal, waiting_on_nodes=on_nodes[name]
        )
        for name in page
    ]
    return ServerList(items=items, next_cursor=next_cursor)


@router.get("/{server}", dependencies=[REQUIRE_READ], summary="Get a server")
async def get_server(
    server: Annotated[
        str, Path(max_length=48, description="Name of a declared server.", examples=["local"])
    ],
    manager: ManagerDep,
    fleet: FleetDep,
    principal: PrincipalDep,
) -> ServerView:
    """Shows a server, its budget, and its open and paused pools that the key can access."""
    found = manager.servers.get(server)
    if found is None:
        raise ServerNotFound(f"No server {server} is declared.")
    on_nodes = _waiting_on_nodes(manager, fleet, principal)
    return await _show(manager, fleet, found, principal, waiting_on_nodes=on_nodes[server])


def _waiting_on_nodes(
    manager: TenantPoolManager, fleet: Fleet, principal: Principal
) -> Counter[str]:
    """Clients of accessible tenants that wait on nodes, by server."""
    found: Counter[str] = Counter()
    for tenant, count in fleet.loads.waiting().items():
        state = manager.tenants.get(tenant)
        if state is not None and principal.can_access(tenant):
            found[state.tenant.spec.server] += count
    return found


async def _show(
    manager: TenantPoolManager,
    fleet: Fleet,
    server: Server,
    principal: Principal,
    *,
    waiting_on_nodes: int,
) -> ServerView:
    limits, admin = server.limits, server.admins.login
    return ServerView(
        name=server.name,
        host=admin.host,
        port=admin.port,
        state=server.state,
        version=limits.version if limits else None,
        max_connections=limits.max_connections if limits else None,
        read_only=limits.read_only if limits else None,
        budget=ServerBudgetView(
            limit=server.limit,
            used=server.used,
            lost=server.lost,
            nodes=server.on_nodes,
            nodes_open=fleet.open_on(server.name),
            kept_free=max(0, limits.max_connections - server.limit) if limits else None,
            contended=server.is_contended,
        ),
        pools=await _pools(manager, server, principal),
        waiting_on_nodes=waiting_on_nodes,
        last_error=server.last_error,
    )


async def _pools(
    manager: TenantPoolManager, server: Server, principal: Principal
) -> list[PoolSummary]:
    tenants = principal.tenants
    accessible = None if tenants is None else set(accessible_pools(manager, tenants))
    open_pools = {pool.pool_id for pool in manager.pools() if pool.server is server}
    paused = [each.pool_id for each in manager.desired.values() if each.pause]
    closed = {
        pool_id
        for pool_id in (*paused, *manager.awaited_pools)
        if manager.tenants.server_of_pool(pool_id) == server.name
    }
    return [
        summary
        async for pool_id in in_slices(sorted(open_pools | closed))
        if (accessible is None or pool_id in accessible)
        and (summary := PoolSummary.of(manager, pool_id)) is not None
    ]
