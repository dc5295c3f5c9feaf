"""The gate before every route: no body above the limit, none that is not JSON.

Pure ASGI. FastAPI's own limit answers in plain text, and a body of another type would pass
for a malformed one.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import respond

MAX_BODY_BYTES = 1024 * 1024
_TOO_LARGE = f"The body is larger than {MAX_BODY_BYTES} bytes."
_NOT_JSON = "The body must be JSON, sent as Content-Type: application/json."


class BodyGate:
    """Refuses bodies that no route could use, before anything is read of them."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 or 415, or let the request pass with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
            refusal = respond(Request(scope), 413, "content-too-large", _TOO_LARGE)
        elif _has_body(headers) and not _is_json(headers.get("content-type", "")):
            refusal = respond(Request(scope), 415, "unsupported-media-type", _NOT_JSON)
        else:
            await self._app(scope, _counted(receive), send)
            return
        await refusal(scope, receive, send)


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def _counted(receive: Receive) -> Receive:
    """*receive*, until more came than any Content-Length announced."""
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return receive_counted
