"""Forwards a standby's requests to the active instance, byte for byte.

A request is held while no instance is active. If an instance dies after a request was sent to it,
the request is sent again only if that does no harm.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from asgi_correlation_id import correlation_id
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.forwarding.exposure import would_expose_passwords
from app.api.forwarding.forwarded_body import ClientLeft, ForwardedBody
from app.api.forwarding.forwarded_client import HEADER, ForwardedClient
from app.api.forwarding.upstream import Upstream, UpstreamLost, Upstreams, UpstreamSilent
from app.api.http.disconnect import Connection
from app.api.http.error_responses import problem_response
from app.api.http.load_shedding import PROBES
from app.api.http.middleware import request_id_of
from app.control.leadership.election import Election

INSTANCE = b"poolkeeper-instance"
"""Header of forwarded responses: the URL of the instance that responded."""

_NOT_ACTIVE = b"poolkeeper-not-active"
# In seconds: how long a request waits for an active instance, and the pause between two tries. Many
# may wait, and each try takes processor time that a takeover needs.
_HOLD = 10.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
# In seconds. Proxies that check /readyz each second wait no longer for its response.
_REACH_DEADLINE = 0.5
_REPEATABLE = frozenset({"GET", "HEAD"})
# RFC 9110, 7.6.1. `expect` was answered here, and each server writes its own date.
_HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
_NOT_SENT = frozenset({*_HOP_BY_HOP, b"expect", HEADER})
# Never hop-by-hop, even if the client says so: without its length, a body would look like the next
# request.
_END_TO_END = frozenset({b"content-length", b"host"})
_NOT_RETURNED = frozenset({*_HOP_BY_HOP, b"date", INSTANCE})
_LOST = "The active instance ended before it responded; the outcome of the request is unknown."
_IN_CLEAR = (
    "The response contains passwords, and this standby reaches the active instance, {}, without "
    "TLS. Send the request to that instance, or use https in POOLKEEPER_ADVERTISE_URL."
)
_UNREACHED = (
    "It cannot be reached from here: {}. Check that it runs, and check its"
    " POOLKEEPER_ADVERTISE_URL."
)
_SILENT = "The active instance did not respond in time; the outcome of the request is unknown."


class Forwarder:
    """Serves requests on the active instance, forwards them on a standby."""

    def __init__(
        self,
        election: Election,
        client: ForwardedClient,
        *,
        keep_alive: float,
        longest_wait: float,
    ) -> None:
        """Forward to the active instance.

        Args:
            election: knows which instance is active.
            client: signs the client of a request.
            keep_alive: seconds of idleness after which a connection is not used again.
            longest_wait: seconds within which every response of the active instance has begun.
        """
        self._election = election
        self._longest_wait = longest_wait
        self._client = client
        self._upstreams = Upstreams(keep_alive=keep_alive)
        # Requests that are served here, each as an object of its own.
        self._served: set[object] = set()
        self._ended = asyncio.Event()
        # Set once another instance may be active.
        self._changed = asyncio.Event()
        election.notify_change(self._reconsider)

    def close(self) -> None:
        """Close all connections to the active instance."""
        self._upstreams.close()

    async def find_trouble(self) -> str | None:
        """Say why this instance could not forward now; None if the active one answers at once."""
        url, trouble = self._election.active_url, None
        if url is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_REACH_DEADLINE):
                    if await self._upstreams.answers(url):
                        return None
                    trouble = self._upstreams.trouble
        return _UNREACHED.format(trouble) if trouble else "It does not answer this instance."

    async def drain(self, deadline: float) -> None:
        """Wait up to *deadline* seconds for the requests that are served here now."""
        served = set(self._served)
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while served & self._served:
                    self._ended.clear()
                    await self._ended.wait()

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let *app* serve the request, or forward it."""
        was_forwarded = self._client.restore(scope)
        give_up_at = asyncio.get_running_loop().time() + _HOLD
        if self._election.is_serving or await self._election.settle():
            await self._serve(app, scope, receive, send)
        elif was_forwarded:  # a request is forwarded at most once
            await self._refusal(scope, {_NOT_ACTIVE.decode(): "1"})(scope, receive, send)
        else:
            with suppress(ClientLeft):
                body = ForwardedBody(scope, receive)
                problem = await self._forward(app, scope, body, send, give_up_at)
                if problem is not None:
                    await problem(scope, _nothing, send)

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        request = object()
        self._served.add(request)
        try:
            await app(scope, receive, send)
        finally:
            self._served.remove(request)
            self._ended.set()

    async def _forward(
        self, app: ASGIApp, scope: Scope, body: ForwardedBody, send: Send, give_up_at: float
    ) -> Response | None:
        """Forward a request, or return why there is no response to pass on."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        request_id = request_id_of(scope)
        correlation_id.set(request_id)
        head = self._head(scope, request_id)
        may_repeat = scope["method"] in _REPEATABLE
        trouble = ""
        while self._election.lost is None:
            changed = self._changed
            if self._election.is_serving:
                await self._serve(app, scope, body.receive_again, send)
                return None
            url = self._election.active_url
            if url is not None and would_expose_passwords(scope, url):
                return _problem(scope, 403, "tls-required", _IN_CLEAR.format(url))
            start = await body.begin()
            upstream = None if url is None else await self._connect(url)
            is_unreached = url is not None and upstream is None
            trouble = f" {_UNREACHED.format(self._upstreams.trouble)}" if is_unreached else ""
            if upstream is not None:
                exchange = _Exchange(upstream, scope, body, send)
                try:
                    if await self._run(exchange, upstream, head + start):
                        return None
                except UpstreamSilent:
                    return _problem(scope, 504, "deadline-exceeded", _SILENT)
                except UpstreamLost:
                    if not (may_repeat and body.is_kept):
                        return _problem(scope, 502, "active-lost", _LOST)
                    may_repeat = False
            # The part of a body that arrived during the refusal may be too large to be sent again.
            if loop.time() >= give_up_at or not body.is_kept:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await changed.wait()
            pause = min(2 * pause, _LONGEST_PAUSE)
        return self._refusal(scope, trouble=trouble)

    async def _connect(self, url: str) -> Upstream | None:
        try:
            return await self._upstreams.connect(url)
        except OSError:
            return None

    async def _run(self, exchange: "_Exchange", upstream: Upstream, start: bytes) -> bool:
        """Run *exchange*, and give its connection back."""
        is_there = partial(self._upstreams.is_there, upstream.url)
        try:
            return await exchange.run(start, self._longest_wait, is_there)
        finally:
            self._upstreams.release(upstream)

    def _head(self, scope: Scope, request_id: str) -> bytes:
        target = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        headers = scope["headers"]
        named = {
            name.strip().lower()
            for header, value in headers
            if header == b"connection"
            for name in value.split(b",")
        }
        left_out = _NOT_SENT | (named - _END_TO_END)
        # The client's HTTP version, because each version allows different things.
        version = scope["http_version"].encode()
        lines = [b"%s %s HTTP/%s" % (scope["method"].encode(), target, version)]
        for name, value in headers:
            if name == b"transfer-encoding":
                lines.append(b"transfer-encoding: chunked")
            elif name not in left_out:
                lines.append(b"%s: %s" % (name, value))
        lines.append(b"%s: %s" % self._client.header(scope, request_id.encode()))
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _refusal(
        self, scope: Scope, headers: dict[str, str] | None = None, *, trouble: str = ""
    ) -> Response:
        detail = f"This instance is a standby. {self._election.active_instance}{trouble}"
        return _problem(scope, 503, "standby", detail, {"Retry-After": "1", **(headers or {})})

    def _reconsider(self) -> None:
        self._upstreams.keep_only(self._election.active_url)
        self._changed.set()
        self._changed = asyncio.Event()


class ActiveInstanceGate:
    """Serves all requests on a service without standbys; otherwise asks the forwarder.

    An orchestrator's probes are about this instance.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        """*state* is the application's, with a forwarder if there are standbys."""
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        forwarder: Forwarder | None = self._state.forwarder
        if forwarder is None or scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
        else:
            await forwarder(self._app, scope, receive, send)


class _Exchange:
    """One request on one connection."""

    def __init__(self, upstream: Upstream, scope: Scope, body: ForwardedBody, send: Send) -> None:
        self._upstream = upstream
        self._scope = scope
        self._body = body
        self._send = send
        self._client: Connection | None = scope["state"].get("connection")
        self._has_left = False

    async def run(
        self, start: bytes, longest_wait: float, is_there: Callable[[], Awaitable[bool]]
    ) -> bool:
        """Send the request and pass on its response; return False if that instance is not active.

        Raises:
            UpstreamSilent: it did not begin to respond within *longest_wait* seconds, is no longer
                *there*, or stopped reading.
            UpstreamLost: the connection broke before a response came.
            ClientLeft: the client closed its connection.
        """
        upstream = self._upstream
        rest: asyncio.Task[None] | None = None
        try:
            upstream.begin(self._scope["method"], start)
            if not self._body.is_whole:
                rest = asyncio.create_task(self._body.send_rest(upstream), name="forward a body")
                rest.add_done_callback(self._body_ended)
            self._notify(self._leave)
            await upstream.respond(longest_wait, is_there)
            is_refusal = any(name == _NOT_ACTIVE for name, _ in upstream.headers)
            if self._body.is_kept and is_refusal:
                while await upstream.read():
                    pass
                return False
            await self._pass_on()
        except UpstreamLost:
            if self._has_left:
                raise ClientLeft from None
            raise
        finally:
            self._notify(None)
            if rest is not None and not rest.done():
                rest.cancel()
                upstream.close()
        return True

    async def _pass_on(self) -> None:
        upstream = self._upstream
        headers = [each for each in upstream.headers if each[0] not in _NOT_RETURNED]
        headers.append((INSTANCE, upstream.url.encode()))
        if not (self._body.is_whole or upstream.keeps_alive):
            # Nobody waits for the rest of the body.
            headers.append((b"connection", b"close"))
        await self._send(
            {"type": "http.response.start", "status": upstream.status, "headers": headers}
        )
        more = True
        try:
            while more:
                data = await upstream.read()
                more = not upstream.is_ended
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except UpstreamLost:
            if self._client is None:
                raise
            # The client must not take a part of the response for the whole.
            self._client.abort()
            await asyncio.sleep(0)

    def _leave(self) -> None:
        self._has_left = True
        self._upstream.close()

    def _body_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._has_left = isinstance(task.exception(), ClientLeft)
            self._upstream.close()

    def _notify(self, callback: Callable[[], None] | None) -> None:
        if self._client is not None:
            self._client.notify_disconnect(callback)


def _problem(
    scope: Scope, status: int, code: str, detail: str, headers: dict[str, str] | None = None
) -> Response:
    given = {"X-Request-ID": correlation_id.get() or "", **(headers or {})}
    is_safe = scope["method"] in _REPEATABLE
    is_retryable = status == 503 or (status == 504 and is_safe)  # noqa: PLR2004
    return problem_response(
        Request(scope), status, code, detail, retryable=is_retryable, headers=given
    )


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
