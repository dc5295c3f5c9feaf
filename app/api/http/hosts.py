"""No page of another site reaches the service, by a name of its own or by ours.

A browser believes that `evil.example` may speak with the address its owner gives it, be that
127.0.0.1 (DNS rebinding); the Host header tells. Starlette's own middleware answers in plain
text and cannot read IPv6 addresses. Under our own name such a page reads no answer, but some
changes need no leave of the browser: they are refused by what it says of their origin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.http.error_responses import problem_response

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::\d{1,5})?")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OUR_SITES = frozenset({"none", "same-origin"})
_NOT_OURS = "The service does not answer to this name; the operator decides in trusted_hosts."
_CROSS_SITE = "A page of another site may change nothing here."


class TrustedHosts:
    """Refuses requests for another host."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        """Answer to *names*: as they are, `*.example.com` for all below, `*` for all there are."""
        self._app = app
        self._takes_all = "*" in names
        self._names = frozenset(name.lower() for name in names)
        self._suffixes = tuple(name[1:].lower() for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, or answer 400."""
        if self._takes_all or scope["type"] != "http" or self._trusts(scope):
            await self._app(scope, receive, send)
            return
        refusal = problem_response(Request(scope), 400, "untrusted-host", _NOT_OURS)
        await refusal(scope, receive, send)

    def _trusts(self, scope: Scope) -> bool:
        given = Headers(scope=scope).getlist("host")
        host = _HOST.fullmatch(given[0].lower()) if len(given) == 1 else None
        return host is not None and (
            host["name"] in self._names or host["name"].endswith(self._suffixes)
        )


class SameOrigin:
    """Refuses changes that a browser sends for a page of another site."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard *app*; whoever is no browser sends none of these headers and passes."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, or answer 403."""
        if scope["type"] != "http" or scope["method"] in _READING or _is_ours(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        refusal = problem_response(Request(scope), 403, "cross-site", _CROSS_SITE)
        await refusal(scope, receive, send)


def _is_ours(headers: Headers) -> bool:
    """Whether the page that asks, if one does, is of this origin."""
    sites = headers.getlist("sec-fetch-site")
    if sites:
        return _OUR_SITES.issuperset(sites)
    # Browsers say no Sec-Fetch-Site to a host that is neither this machine nor has TLS. Behind a
    # proxy the scheme may be another.
    host = headers.get("host", "").lower()
    return all(origin.lower().partition("://")[2] == host for origin in headers.getlist("origin"))
