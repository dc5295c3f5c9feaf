"""The outermost stage: headers that every answer bears, and HEAD as GET without a body.

What an answer says of itself wins: the documentation's page has a policy of its own. There is
no CORS header anywhere, so no page of another site reads an answer.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Of all answers; none of them is ever a page, except the documentation.
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_RAW = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class ResponseHeaders:
    """Puts the headers in, and takes the body of a HEAD request's answer out."""

    def __init__(self, app: ASGIApp) -> None:
        """Complete the answers of *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def send_complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                unsaid = [header for header in _RAW if header[0] not in said]
                message = {**message, "headers": [*message["headers"], *unsaid]}
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if is_head:
            scope = {**scope, "method": "GET"}
            scope.setdefault("state", {})["is_head"] = True
        await self._app(scope, receive, send_complete)
