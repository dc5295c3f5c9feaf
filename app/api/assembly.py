"""The HTTP application: its layers, its routes, its errors and its OpenAPI document."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from starlette.middleware import Middleware

from app.api import openapi
from app.api.http import disconnect, error_responses
from app.api.http.authentication import Authentication
from app.api.http.body_limits import BodyLimits
from app.api.http.deadline import RequestDeadline
from app.api.http.idempotency import Idempotency, ResponseReplayed, replay
from app.api.http.request_checks import RequestChecks, TrustedHosts, check_framing, check_origin
from app.api.http.response_cache import CachedResponses, ResponseCache
from app.api.http.response_headers import ResponseHeaders
from app.api.routes import (
    advisor,
    credentials,
    events,
    health,
    metrics,
    pool,
    pools,
    query,
    recommendations,
    refusals,
    servers,
    stats,
    stats_history,
    stats_stream,
    tenants,
)
from app.api.ui import pages

_ROUTERS = (
    servers.router,
    tenants.router,
    credentials.router,
    pool.router,
    pools.router,
    query.router,
    stats.router,
    stats_history.router,
    stats_stream.router,
    advisor.router,
    recommendations.router,
    events.router,
    refusals.router,
    health.router,
    metrics.router,
    pages.router,
)


def assemble(
    app: FastAPI,
    *,
    trusted_hosts: Sequence[str],
    request_deadline: float,
    require_if_match: bool,
) -> None:
    """Give *app* everything but the service's objects, which its lifespan provides.

    *request_deadline*: seconds for a body to arrive, and again for a response to begin.
    """
    app.state.require_if_match = require_if_match
    app.state.provided = {}
    app.state.service = None
    app.state.response_cache = None
    error_responses.install(app)
    disconnect.install(app)
    app.add_exception_handler(ResponseReplayed, replay)
    # Outermost first. Every refusal has a request id; nothing is read of a request without a
    # key; what is stored of a response is what its caller gets.
    app.user_middleware += [
        Middleware(ResponseHeaders),
        Middleware(
            CorrelationIdMiddleware,
            header_name="X-Request-ID",
            generator=lambda: os.urandom(16).hex(),
            validator=_is_request_id,
            transformer=str,
        ),
        Middleware(
            RequestChecks, checks=(check_framing, TrustedHosts(trusted_hosts), check_origin)
        ),
        Middleware(Authentication),
        # Before the deadline: it waits for a snapshot at most.
        Middleware(CachedResponses),
        Middleware(RequestDeadline, seconds=request_deadline),
        Middleware(Idempotency),
        Middleware(BodyLimits),
    ]
    for router in _ROUTERS:
        app.include_router(router)
    openapi.install(app)


def provide(app: FastAPI, *objects: object) -> None:
    """Let the routes of *app* depend on these objects, each found by its class."""
    app.state.provided = {type(each): each for each in objects}
    app.state.response_cache = app.state.provided[ResponseCache]


def _is_request_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", text) is not None
