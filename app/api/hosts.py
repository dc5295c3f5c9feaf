"""Which names the service answers to: no page of another site reaches it by a name of its own.

A browser believes that `evil.example` may speak with the address its owner gives it, be that
127.0.0.1 (DNS rebinding); the Host header tells. Starlette's own middleware answers in plain
text and cannot read IPv6 addresses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import respond

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::\d{1,5})?")
_NOT_OURS = "The service does not answer to this name; the operator decides in trusted_hosts."


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
        refusal = respond(Request(scope), 400, "untrusted-host", _NOT_OURS)
        await refusal(scope, receive, send)

    def _trusts(self, scope: Scope) -> bool:
        given = Headers(scope=scope).getlist("host")
        host = _HOST.fullmatch(given[0].lower()) if len(given) == 1 else None
        return host is not None and (
            host["name"] in self._names or host["name"].endswith(self._suffixes)
        )
