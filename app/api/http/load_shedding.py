"""Requests beyond what there may be at a time: refused, but for the probes of an orchestrator."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.http.client_connections import ClientConnections
from app.api.http.error_responses import problem_response

_PROBES = frozenset({"/livez", "/readyz"})
_FULL = "As many requests are under way as there may be connections; try again."


class LoadShedding:
    """Sends clients away while every connection is at work."""

    def __init__(self, app: ASGIApp, clients: ClientConnections) -> None:
        """Stand before *app*, whose callers are *clients*."""
        self._app = app
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503, or let the request pass."""
        if scope["type"] != "http" or not self._clients.is_overloaded or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        refusal = problem_response(
            Request(scope),
            503,
            "overloaded",
            _FULL,
            retryable=True,
            headers={"Connection": "close", "Retry-After": "1"},
        )
        await refusal(scope, receive, send)
