"""The HTTP application: its layers, its routes, its errors and its OpenAPI document."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any, cast

from fastapi import FastAPI
from starlette.types import ASGIApp

from app.api import openapi
from app.api.forwarding.forwarder import ActiveInstanceGate
from app.api.http import disconnect, error_responses
from app.api.http.idempotency import ResponseReplayed, replay
from app.api.http.middleware import DirectRoutes, HttpLayer
from app.api.http.response_cache import ResponseCache
from app.api.http.sql_protocol import SQL_PATH, AllowedOrigins
from app.api.routes import (
    about,
    advisor,
    application_credentials,
    events,
    findings,
    health,
    instances,
    keys,
    leases,
    metrics,
    node_agents,
    node_tenants,
    nodes,
    password_rotation,
    pool,
    pools,
    query,
    recommendations,
    refusals,
    servers,
    sql,
    stats,
    stats_history,
    stats_stream,
    tenants,
    usage,
)
from app.api.ui import pages

_ROUTERS = (
    servers.router,
    nodes.router,
    node_tenants.router,
    node_agents.router,
    tenants.router,
    findings.router,
    password_rotation.router,
    application_credentials.router,
    pool.router,
    pools.router,
    leases.router,
    query.router,
    sql.router,
    stats.router,
    stats_history.router,
    stats_stream.router,
    usage.router,
    advisor.router,
    recommendations.router,
    events.router,
    refusals.router,
    keys.router,
    about.router,
    health.router,
    health.v1_router,
    instances.router,
    metrics.router,
    pages.router,
)

# Ordinary requests to these routes bypass FastAPI's routing, which costs more than their work.
_DIRECT_ROUTES: DirectRoutes = {
    "GET": [(re.compile("/livez"), health.respond_alive)],
    "POST": [
        (re.compile(r"/v1/tenants/(?P<tenant>[^/]+)/query"), query.respond_directly),
        (re.compile(SQL_PATH), sql.respond_directly),
    ],
}


def assemble(
    app: FastAPI,
    *,
    trusted_hosts: Sequence[str],
    request_deadline: float,
    require_if_match: bool,
    serves_sql: bool,
    sql_origins: Sequence[str],
) -> None:
    """Give *app* everything but the service's objects, which its lifespan provides.

    *request_deadline*: seconds for a body to arrive, and again for a response to begin.
    *sql_origins*: the sites whose pages may call POST /sql, where it is served.
    """
    app.state.require_if_match = require_if_match
    app.state.serves_sql = serves_sql
    app.state.provided = {}
    app.state.long_bodies = asyncio.Lock()
    app.state.service = None
    app.state.forwarder = None
    app.state.readiness = None
    app.state.response_cache = None
    error_responses.install(app)
    disconnect.install(app)
    app.add_exception_handler(ResponseReplayed, replay)

    def build() -> ASGIApp:
        # Just inside the layer that answers unhandled errors, outside FastAPI's own layers.
        stack: Any = FastAPI.build_middleware_stack(app)
        layer = HttpLayer(
            stack.app,
            trusted_hosts=trusted_hosts,
            request_deadline=request_deadline,
            direct_routes=_DIRECT_ROUTES,
            sql_origins=AllowedOrigins(sql_origins if serves_sql else ()),
        )
        stack.app = ActiveInstanceGate(layer, app.state)
        return cast("ASGIApp", stack)

    app.build_middleware_stack = build  # type: ignore[method-assign]
    # `include_router` would rebuild every route at the first request of each application.
    app.router.routes += [route for router in _ROUTERS for route in router.routes]
    openapi.install(app)


def provide(app: FastAPI, *objects: object) -> None:
    """Let the routes of *app* depend on these objects, each found by its class."""
    app.state.provided = {type(each): each for each in objects}
    app.state.response_cache = app.state.provided[ResponseCache]
