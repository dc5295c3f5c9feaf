"""Lets requests through on the active instance only."""

from __future__ import annotations

from starlette.datastructures import State
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.http.error_responses import problem_response
from app.api.http.load_shedding import PROBES
from app.control.leadership.election import Election


class StandbyGate:
    """Refuses requests on a standby, except for an orchestrator's probes."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        """*state* is the application's, with its election if there are to be standbys."""
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        election: Election | None = self._state.election
        if (
            election is None
            or election.is_serving
            or scope["type"] != "http"
            or scope["path"] in PROBES
            or await election.settle()
        ):
            await self._app(scope, receive, send)
            return
        refusal = problem_response(
            Request(scope),
            503,
            "standby",
            f"This instance is a standby. {election.active_instance}",
            retryable=True,
            headers={"Retry-After": "1"},
        )
        await refusal(scope, receive, send)
