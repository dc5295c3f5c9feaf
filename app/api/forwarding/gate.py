"""Brings requests to the active instance, wherever that is."""

from __future__ import annotations

from starlette.datastructures import State
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.forwarding.forwarder import Forwarder
from app.api.http.load_shedding import PROBES


class ActiveInstanceGate:
    """Serves all requests on a service without standbys; otherwise asks the forwarder.

    An orchestrator's probes are about this instance.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        """*state* is the application's, with a forwarder if there are standbys."""
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        forwarder: Forwarder | None = self._state.forwarder
        if forwarder is None or scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
        else:
            await forwarder(self._app, scope, receive, send)
