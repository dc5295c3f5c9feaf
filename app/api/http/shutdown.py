"""Tells clients of a stopping server to close their connections, or that they were cut off."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.http.error_responses import problem_response

_CUT_OFF = "The service is stopping; the outcome of the request is unknown."


class ShutdownResponder:
    """Asks clients to close their connections once the server is stopping.

    Uvicorn does so only for connections that it knew when the signal came. A connection accepted in
    that moment would otherwise keep bringing new requests until they are cut off.
    """

    def __init__(self, app: ASGIApp, is_stopping: Callable[[], bool]) -> None:
        self._app = app
        self._is_stopping = is_stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """While stopping, add a header to responses, and answer requests that are cut off."""
        has_begun = False

        async def send_closing(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            if message["type"] == "http.response.start" and self._is_stopping():
                headers = [*message.get("headers", []), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_closing)
        except asyncio.CancelledError:
            if has_begun or not self._is_stopping() or scope["type"] != "http":
                raise
            response = problem_response(Request(scope), 503, "service-stopping", _CUT_OFF)
            await response(scope, receive, send_closing)
