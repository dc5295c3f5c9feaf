"""The gate before every route: nothing overlong, and no body that is not JSON.

Pure ASGI. FastAPI's own limit answers in plain text, and a body of another type would pass
for a malformed one.
"""

from __future__ import annotations

from email.message import Message as MediaType

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http.error_responses import problem_response

MAX_BODY_BYTES = 1024 * 1024
MAX_QUERY_BYTES = 8192
_TOO_LARGE = f"The body is larger than {MAX_BODY_BYTES} bytes."
_TOO_LONG = f"The query string is longer than {MAX_QUERY_BYTES} bytes."
_NOT_JSON = "The body must be JSON in UTF-8, sent once as Content-Type: application/json."
_ENCODED = "The body must come as it is, without a Content-Encoding."


class BodyLimits:
    """Refuses what no route could use, before anything is read of it."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413, 414 or 415, or let the request pass with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if len(scope["query_string"]) > MAX_QUERY_BYTES:
            refusal = problem_response(Request(scope), 414, "uri-too-long", _TOO_LONG)
        elif length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
            refusal = problem_response(Request(scope), 413, "content-too-large", _TOO_LARGE)
        elif _has_body(headers) and not _is_json(headers.getlist("content-type")):
            refusal = problem_response(Request(scope), 415, "unsupported-media-type", _NOT_JSON)
        elif _has_body(headers) and headers.get("content-encoding", "identity") != "identity":
            refusal = problem_response(Request(scope), 415, "unsupported-media-type", _ENCODED)
        else:
            await self._app(scope, _counted(receive), send)
            return
        await refusal(scope, receive, send)


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(content_types: list[str]) -> bool:
    if content_types == ["application/json"]:
        return True
    if len(content_types) != 1:
        return False
    parsed = MediaType()
    parsed["Content-Type"] = content_types[0]
    media_type = parsed.get_content_type()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    return is_json and str(parsed.get_param("charset", "utf-8")).lower() in ("utf-8", "utf8")


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
