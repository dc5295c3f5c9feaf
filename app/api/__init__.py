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

from app.api import (
    advisor,
    credentials,
    disconnect,
    docs,
    events,
    health,
    history,
    metrics,
    page,
    pool,
    pools,
    problems,
    query,
    recommendations,
    servers,
    stats,
    stream,
    tenants,
)
from app.api.auth import Authentication
from app.api.deadline import RequestDeadline
from app.api.framing import Framing
from app.api.gate import BodyGate
from app.api.headers import CommonHeaders
from app.api.hosts import SameOrigin, TrustedHosts
from app.api.idempotency import Idempotency, Repeated, replay
from app.api.rendered import Rendered, Shortcut

_ROUTERS = (
    servers.router,
    tenants.router,
    credentials.router,
    pool.router,
    pools.router,
    query.router,
    stats.router,
    history.router,
    stream.router,
    advisor.router,
    recommendations.router,
    events.router,
    health.router,
    metrics.router,
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
    app.state.rendered = Rendered()
    app.state.costly = health.CostlyChecks()
    problems.install(app)
    disconnect.install(app)
    app.add_exception_handler(Repeated, replay)
    # Outermost first: every refusal carries a request id, nothing is read of what strangers
    # send, and what is kept of an answer is what the caller would have been told.
    app.user_middleware += [
        Middleware(CommonHeaders),
        Middleware(
            CorrelationIdMiddleware,
            header_name="X-Request-ID",
            generator=lambda: os.urandom(16).hex(),
            validator=_is_request_id,
            transformer=str,
        ),
        Middleware(Framing),
        Middleware(TrustedHosts, names=trusted_hosts),
        Middleware(SameOrigin),
        Middleware(Authentication),
        # Nothing before the deadline waits for more than a snapshot.
        Middleware(Shortcut),
        Middleware(RequestDeadline, seconds=request_deadline),
        Middleware(Idempotency),
        Middleware(BodyGate),
    ]
    for router in _ROUTERS:
        app.include_router(router)
    docs.install(app)


def _is_request_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", text) is not None
