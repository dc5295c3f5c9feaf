"""Limits of the query string and the body: their size, and JSON as the only media type.

Pure ASGI: FastAPI's own limit answers in plain text, and a body of another type would be
reported as malformed JSON.
"""

from __future__ import annotations

from email.message import Message as MediaType

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http.error_responses import problem_response

MAX_BODY_BYTES = 1024 * 1024
MAX_QUERY_BYTES = 8192
_BODY_TOO_LARGE = f"The body is larger than {MAX_BODY_BYTES} bytes."
_QUERY_TOO_LONG = f"The query string is longer than {MAX_QUERY_BYTES} bytes."
_NOT_JSON = "The body must be UTF-8 JSON with one header Content-Type: application/json."
_ENCODED = "The body must not have a Content-Encoding."


class BodyLimits:
    """Answers 413, 414 or 415, or passes the request on and counts its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif refusal := _refusal(scope):
            await refusal(scope, receive, send)
        else:
            await self._app(scope, _counted(receive), send)


def has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _refusal(scope: Scope) -> Response | None:
    headers = Headers(scope=scope)
    length = headers.get("content-length", "")
    if len(scope["query_string"]) > MAX_QUERY_BYTES:
        return problem_response(Request(scope), 414, "uri-too-long", _QUERY_TOO_LONG)
    if length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
        return problem_response(Request(scope), 413, "content-too-large", _BODY_TOO_LARGE)
    if not has_body(headers):
        return None
    if not _is_json(headers.getlist("content-type")):
        return problem_response(Request(scope), 415, "unsupported-media-type", _NOT_JSON)
    if headers.get("content-encoding", "identity") != "identity":
        return problem_response(Request(scope), 415, "unsupported-media-type", _ENCODED)
    return None


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
    """*receive*, which raises 413 once the body exceeds the limit without having announced it."""
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, _BODY_TOO_LARGE)
        return message

    return receive_counted
