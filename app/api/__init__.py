"""TALK: HTTP and nothing else.

Each file owns its routes and the models of their requests and responses, translates at the
border, and picks the status of an error. Rules, SQL and connections live in the rooms below;
nothing here may reach past `control` for a change.
"""

from fastapi import FastAPI
from starlette.middleware import Middleware

from app.api import (
    advisor,
    docs,
    events,
    health,
    metrics,
    pool,
    pools,
    problems,
    query,
    recommendations,
    servers,
    stats,
    tenants,
)
from app.api.gate import BodyGate

_ROUTERS = (
    servers.router,
    tenants.router,
    pool.router,
    pools.router,
    query.router,
    stats.router,
    advisor.router,
    recommendations.router,
    events.router,
    health.router,
    metrics.router,
    docs.router,
)


def assemble(app: FastAPI) -> None:
    """Give *app* every route, its problems and its document; the service itself comes later."""
    problems.install(app)
    # Innermost, so that its refusals carry a request id like every other answer.
    app.user_middleware.append(Middleware(BodyGate))
    for router in _ROUTERS:
        app.include_router(router)
    docs.install(app)
