"""Requests that two readers could understand differently are refused, and so are huge headers.

A proxy before us that takes another end of a request for the true one would hand us the rest of
it as somebody else's request (RFC 9112, 11.2). After such a request nothing on its connection can
be trusted, so it is closed.
"""

from __future__ import annotations

from collections import Counter

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.http.error_responses import problem_response

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024
MAX_PATH_BYTES = 8192
_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})
_AMBIGUOUS = "Give one Content-Length, or Transfer-Encoding: chunked with HTTP/1.1, not both."
HEADERS_TOO_LARGE = f"At most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together are taken."
_TOO_LONG = f"The path is longer than {MAX_PATH_BYTES} bytes."


class RequestFraming:
    """Refuses what has no clear end, or too long a beginning."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, 414 or 431 and close the connection, or let the request pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if _is_ambiguous(headers, scope["http_version"]):
            status, code, detail = 400, "ambiguous-length", _AMBIGUOUS
        elif len(headers) > MAX_HEADERS or _size(headers) > MAX_HEADER_BYTES:
            status, code, detail = 431, "headers-too-large", HEADERS_TOO_LARGE
        elif len(scope["raw_path"] or b"") > MAX_PATH_BYTES:
            status, code, detail = 414, "uri-too-long", _TOO_LONG
        else:
            await self._app(scope, receive, send)
            return
        refusal = problem_response(
            Request(scope), status, code, detail, headers={"Connection": "close"}
        )
        await refusal(scope, receive, send)


def _is_ambiguous(headers: list[tuple[bytes, bytes]], version: str) -> bool:
    given = Counter(name for name, _ in headers if name in _LENGTHS)
    return given.total() > 1 or (b"transfer-encoding" in given and version == "1.0")


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)
