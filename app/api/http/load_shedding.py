"""Answers 503 to requests beyond the connection limit, except to an orchestrator's probes."""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.http.client_connections import ClientConnections
from app.api.http.error_responses import problem_response

PROBES = frozenset({"/livez", "/readyz"})
_OVERLOADED = "The service handles its maximum number of requests; try again."


class LoadShedding:
    """Refuses requests while every connection is serving one."""

    def __init__(self, app: ASGIApp, clients: ClientConnections) -> None:
        self._app = app
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._clients.is_overloaded or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        refusal = problem_response(
            Request(scope),
            503,
            "overloaded",
            _OVERLOADED,
            retryable=True,
            headers={"Connection": "close", "Retry-After": "1"},
        )
        await refusal(scope, receive, send)
