"""TALK: HTTP and nothing else.

Each file owns its routes and the models of their requests and responses, translates at the
border, and picks the status of an error. Rules, SQL and connections live in the rooms below;
nothing here may reach past `control` for a change.
"""

import os
import re
from collections.abc import Sequence

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from starlette.middleware import Middleware

from app.api.auth.authenticator import Authentication
from app.api.http import disconnect, error_responses
from app.api.http.body_limits import BodyLimits
from app.api.http.deadline import RequestDeadline
from app.api.http.framing import RequestFraming
from app.api.http.hosts import SameOrigin, TrustedHosts
from app.api.http.idempotency import Idempotency, ResponseReplayed, replay
from app.api.http.response_cache import CachedResponses, ResponseCache
from app.api.http.response_headers import ResponseHeaders
from app.api.routes import (
    advisor,
    credentials,
    events,
    health,
    pool,
    pools,
    query,
    recommendations,
    servers,
    stats,
    stats_history,
    stats_stream,
    tenants,
)
from app.api.telemetry import service_metrics
from app.api.ui import docs, page

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
    health.router,
    service_metrics.router,
    page.router,
    docs.router,
)


def assemble(
    app: FastAPI,
    *,
    trusted_hosts: Sequence[str],
    request_deadline: float,
    require_if_match: bool,
) -> None:
    """Give *app* every route, its problems and its document; the service itself comes later.

    Args:
        app: what everything is given to.
        trusted_hosts: names it answers to, see `TrustedHosts`.
        request_deadline: seconds for a body to arrive, and for an answer to begin.
        require_if_match: whether what exists is changed only for who says which version.
    """
    app.state.require_if_match = require_if_match
    app.state.rendered = ResponseCache()
    app.state.costly = health.CachedChecks()
    error_responses.install(app)
    disconnect.install(app)
    app.add_exception_handler(ResponseReplayed, replay)
    # Outermost first: every refusal carries a request id, nothing is read of what strangers
    # send, and what is kept of an answer is what the caller would have been told.
    app.user_middleware += [
        Middleware(ResponseHeaders),
        Middleware(
            CorrelationIdMiddleware,
            header_name="X-Request-ID",
            generator=lambda: os.urandom(16).hex(),
            validator=_is_request_id,
            transformer=str,
        ),
        Middleware(RequestFraming),
        Middleware(TrustedHosts, names=trusted_hosts),
        Middleware(SameOrigin),
        Middleware(Authentication),
        # Nothing before the deadline waits for more than a snapshot.
        Middleware(CachedResponses),
        Middleware(RequestDeadline, seconds=request_deadline),
        Middleware(Idempotency),
        Middleware(BodyLimits),
    ]
    for router in _ROUTERS:
        app.include_router(router)
    docs.install(app)


def _is_request_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", text) is not None
