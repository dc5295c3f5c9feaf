"""The declared servers over HTTP: what state they are in, and where their connections went."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth.authenticator import REQUIRE_READ
from app.api.auth.principal import Principal
from app.api.http.dependencies import CursorQuery, LimitQuery, PrincipalDep, Service, ServiceDep
from app.api.http.error_responses import problem_responses
from app.api.http.paging import decode_cursor, paginate
from app.api.http.strict_route import StrictRoute
from app.api.views.pool import visible_pools
from app.domain.errors import ServerNotFound
from app.domain.pool import PoolState
from app.pools.server import Server, ServerState

router = APIRouter(prefix="/v1/servers", tags=["servers"], route_class=StrictRoute)

_EXAMPLE: dict[str, Any] = {
    "name": "local",
    "host": "127.0.0.1",
    "port": 5432,
    "state": "available",
    "version": "18.6",
    "max_connections": 100,
    "read_only": False,
    "budget": {"limit": 84, "used": 3, "kept_free": 16, "contended": False},
    "pools": [
        {"pool_id": "acme", "state": "ready", "size": 3, "idle": 1, "active": 2, "waiting": 0}
    ],
    "last_error": None,
}


class ServerBudgetView(BaseModel):
    """One server's connections, for all pools together."""

    limit: int = Field(description="Most connections of all pools; 0 before the first contact.")
    used: int = Field(description="Connections open, being opened or being closed.")
    kept_free: int | None = Field(
        description="Of max_connections, what is left to Postgres' reserve, to this service's own "
        "needs and to others."
    )
    contended: bool = Field(description="Whether a pool wants a connection and cannot have it.")


class ServerPoolView(BaseModel):
    """An open pool on a server."""

    pool_id: str
    state: PoolState
    size: int = Field(description="Open connections.")
    idle: int
    active: int
    waiting: int


class ServerView(BaseModel):
    """A declared server."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: str
    host: str
    port: int
    state: ServerState
    version: str | None = Field(description="Of Postgres; null before the first contact.")
    max_connections: int | None
    read_only: bool | None = Field(
        description="Whether the server takes no writes: `default_transaction_read_only` was set "
        "for it, its database, all roles or the service's, as hosters do while a disk is full. "
        "Null before the first contact."
    )
    budget: ServerBudgetView
    pools: list[ServerPoolView]
    last_error: str | None = Field(
        description="Why it is unavailable or, while it is available, why no new connection can be "
        "opened: open ones go on. Null when all is well."
    )


class ServerList(BaseModel):
    """One page of servers."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [_EXAMPLE], "next_cursor": None}]}
    )

    items: list[ServerView]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


@router.get("", dependencies=[REQUIRE_READ], summary="List servers", responses=problem_responses())
async def list_servers(
    service: ServiceDep, caller: PrincipalDep, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> ServerList:
    """Every declared server, by name. Works while the servers and the catalog are away."""
    after = decode_cursor(cursor, str)[0] if cursor else ""
    names = sorted(name for name in service.manager.servers if name > after)
    page, next_cursor = paginate(names, limit, lambda name: (name,))
    items = [_show(service, service.manager.servers[name], caller) for name in page]
    return ServerList(items=items, next_cursor=next_cursor)


@router.get(
    "/{server}",
    dependencies=[REQUIRE_READ],
    summary="Show a server",
    responses=problem_responses(404),
)
async def get_server(
    server: Annotated[
        str, Path(max_length=48, description="A declared server.", examples=["local"])
    ],
    service: ServiceDep,
    caller: PrincipalDep,
) -> ServerView:
    """One declared server, its connection budget and the open pools that the key may see."""
    found = service.manager.servers.get(server)
    if found is None:
        raise ServerNotFound
    return _show(service, found, caller)


def _show(service: Service, server: Server, caller: Principal) -> ServerView:
    limits, budget, admin = server.limits, server.budget, server.admin_login
    return ServerView(
        name=server.name,
        host=admin.host,
        port=admin.port,
        state=server.state,
        version=limits.version if limits else None,
        max_connections=limits.max_connections if limits else None,
        read_only=limits.read_only if limits else None,
        budget=ServerBudgetView(
            limit=budget.limit,
            used=budget.used,
            kept_free=max(0, limits.max_connections - budget.limit) if limits else None,
            contended=budget.is_contended,
        ),
        pools=_pools(service, server, caller),
        last_error=server.last_error,
    )


def _pools(service: Service, server: Server, caller: Principal) -> list[ServerPoolView]:
    pools = (pool for pool in visible_pools(service, caller) if pool.server is server)
    return [
        ServerPoolView(
            pool_id=pool.pool_id,
            state=pool.state,
            size=pool.metrics.total_connections,
            idle=pool.metrics.idle_connections,
            active=pool.metrics.active_connections,
            waiting=pool.metrics.waiting_requests,
        )
        for pool in sorted(pools, key=lambda pool: pool.pool_id)
    ]
