"""Checks that refuse a request before anything of it is read.

They refuse ambiguous lengths, huge headers, foreign hosts and changes from pages of other sites:

* A proxy that finds another end of a request than we do would send us the rest of it as somebody
  else's request (RFC 9112, 11.2). Nothing on such a connection can be trusted, so it is closed.
* A browser lets `evil.example` talk to whatever address its owner gives it, 127.0.0.1 included
  (DNS rebinding); the Host header gives it away. Starlette's own middleware answers in plain
  text and does not parse IPv6 addresses.
* Under our own name such a page cannot read a response, but some changes need no permission of
  the browser: they are refused by their Sec-Fetch-Site or Origin header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.http.error_responses import problem_response

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024
MAX_PATH_BYTES = 8192
HEADERS_TOO_LARGE = f"At most {MAX_HEADERS} headers with {MAX_HEADER_BYTES} bytes in total."
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})
AMBIGUOUS_LENGTH = "Send one Content-Length, or Transfer-Encoding: chunked with HTTP/1.1, not both."
URI_TOO_LONG = f"The path is longer than {MAX_PATH_BYTES} bytes."
_UNTRUSTED_HOST = "This host name is not in the setting trusted_hosts."
_CROSS_SITE = "Pages of other sites cannot change anything here."
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::\d{1,5})?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SAME_SITE = frozenset({"none", "same-origin"})

# The refusal of a request, or None.
RequestCheck = Callable[[Scope], Response | None]


class RequestChecks:
    """Sends the first refusal of its checks, or passes the request on."""

    def __init__(self, app: ASGIApp, checks: Sequence[RequestCheck]) -> None:
        self._app = app
        self._checks = checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for check in self._checks:
                if refusal := check(scope):
                    await refusal(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def check_framing(scope: Scope) -> Response | None:
    """400, 414 or 431 for a request without a clear end, or with too long a head."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if _is_ambiguous(headers, scope["http_version"]):
        status, code, detail = 400, "ambiguous-length", AMBIGUOUS_LENGTH
    elif len(headers) > MAX_HEADERS or _size(headers) > MAX_HEADER_BYTES:
        status, code, detail = 431, "headers-too-large", HEADERS_TOO_LARGE
    elif len(scope["raw_path"] or b"") > MAX_PATH_BYTES:
        status, code, detail = 414, "uri-too-long", URI_TOO_LONG
    else:
        return None
    return problem_response(Request(scope), status, code, detail, headers={"Connection": "close"})


class TrustedHosts:
    """400 for a Host header that is not one of *names*.

    A name is taken as it is, `*.example.com` stands for every name below, `*` for all.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._allows_all = "*" in names
        self._names = frozenset(name.lower() for name in names)
        self._suffixes = tuple(name[1:].lower() for name in names if name.startswith("*."))

    def __call__(self, scope: Scope) -> Response | None:
        if self._allows_all or self._is_trusted(Headers(scope=scope).getlist("host")):
            return None
        return problem_response(Request(scope), 400, "untrusted-host", _UNTRUSTED_HOST)

    def _is_trusted(self, hosts: list[str]) -> bool:
        host = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        return host is not None and (
            host["name"] in self._names or host["name"].endswith(self._suffixes)
        )


def check_origin(scope: Scope) -> Response | None:
    """403 for a change that a browser sends for a page of another site.

    Programs that are no browsers send none of these headers and pass.
    """
    if scope["method"] in _SAFE_METHODS or _is_same_origin(Headers(scope=scope)):
        return None
    return problem_response(Request(scope), 403, "cross-site", _CROSS_SITE)


def _is_ambiguous(headers: list[tuple[bytes, bytes]], version: str) -> bool:
    given = Counter(name for name, _ in headers if name in _LENGTHS)
    return given.total() > 1 or (b"transfer-encoding" in given and version == "1.0")


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def _is_same_origin(headers: Headers) -> bool:
    sites = headers.getlist("sec-fetch-site")
    if sites:
        return _SAME_SITE.issuperset(sites)
    # Browsers send no Sec-Fetch-Site to a host that is neither this machine nor has TLS. Behind a
    # proxy the scheme may differ.
    host = headers.get("host", "").lower()
    return all(origin.lower().partition("://")[2] == host for origin in headers.getlist("origin"))
