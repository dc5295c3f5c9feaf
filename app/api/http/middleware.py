"""The one layer around every route: the checks before it, and the headers of each response.

The first failing check refuses the request; a refusal has a request ID. Without a valid key,
nothing of the body is read. A stored response is exactly what its caller gets.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import getrandbits
from typing import Any

from asgi_correlation_id import correlation_id
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from app.api.auth.principal import ANONYMOUS, UNRESTRICTED
from app.api.http.authentication import authenticate
from app.api.http.body_limits import check_body
from app.api.http.compression import accepts_gzip
from app.api.http.exchange import Exchange
from app.api.http.idempotency import KeyReservation, ResponseStore, reservation_for
from app.api.http.request_checks import (
    HeaderValues,
    TrustedHosts,
    check_framing,
    check_origin,
    refuse_host,
)
from app.api.http.response_cache import send_cached
from app.api.http.sql_protocol import AllowedOrigins
from app.api.http.strict_request import StrictRequest

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HEAD = "HEAD"

# Responds to an ordinary request of a route whose path pattern matched; returns None for others.
DirectHandler = Callable[[StrictRequest], Awaitable[Response | None]]
# By method; the groups of the path are the parameters.
DirectRoutes = Mapping[str, Sequence[tuple[re.Pattern[str], DirectHandler]]]


class HttpLayer:
    """Passes valid requests on to routes, and answers all others."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        trusted_hosts: Sequence[str],
        request_deadline: float,
        direct_routes: DirectRoutes,
        sql_origins: AllowedOrigins,
    ) -> None:
        self._app = app
        self._sql_origins = sql_origins
        self._hosts = TrustedHosts(trusted_hosts)
        self._deadline = request_deadline
        self._direct_routes = direct_routes
        self._store = ResponseStore()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if scope["method"] == _HEAD:
            scope = {**scope, "method": "GET"}
            state["is_head"] = True
        given = _header_values(scope["headers"])
        request_id = request_id_of(scope)
        correlation_id.set(request_id)
        if (task := asyncio.current_task()) is not None:
            task.set_name(f"request {request_id}")
        is_read = scope["method"] == "GET"
        gzips = is_read and accepts_gzip(given)
        cors = self._sql_origins.headers(scope, given)
        exchange = Exchange(scope, receive, send, request_id, accepts_gzip=gzips, more_headers=cors)
        is_trusted = self._hosts.include(given)
        principal = (
            check_framing(scope, given)
            or (None if is_trusted else refuse_host(scope))
            or (None if cors else check_origin(scope, given))
            or authenticate(scope, given)
        )
        if principal is UNRESTRICTED and not is_trusted:
            # It may come from a page of any site.
            principal = ANONYMOUS
        if isinstance(principal, Response):
            await principal(scope, receive, exchange.send)
            return
        state["principal"], state["exchange"] = principal, exchange
        # Reset by hand: this runs for every request, and a context manager costs twice as much.
        bound = bind_contextvars(actor=principal.name)
        try:
            if not (is_read and await send_cached(scope, given, exchange.send)):
                await self._respond(scope, given, exchange)
        finally:
            await exchange.close()
            # It has the scope, too: otherwise only the garbage collector could free each request.
            del state["exchange"]
            reset_contextvars(**bound)

    async def _respond(self, scope: Scope, given: HeaderValues, exchange: Exchange) -> None:
        exchange.set_deadline(self._deadline)
        reservation = reservation_for(self._store, scope, given)
        refusal = reservation if isinstance(reservation, Response) else check_body(scope, given)
        if refusal is not None:
            await refusal(scope, exchange.receive, exchange.send)
            return
        if isinstance(reservation, KeyReservation):
            scope["state"]["reservation"] = reservation
            exchange.record_for(reservation)
        for path, handler in self._direct_routes.get(scope["method"], ()):
            if found := path.fullmatch(scope["path"]):
                scope["path_params"] = found.groupdict()
                # The body has values for Postgres, which keep their digits.
                request = StrictRequest(scope, exchange.receive, "lossless-float")
                response = await _responded(handler, request)
                if response is None:
                    await self._app(scope, request.receive_again, exchange.send)
                else:
                    await response(scope, exchange.receive, exchange.send)
                return
        await self._app(scope, exchange.receive, exchange.send)


async def _responded(handler: DirectHandler, request: StrictRequest) -> Response | None:
    """The handler's response, or the response to the error that it raised."""
    handlers: Mapping[Any, Callable[..., Awaitable[Response]]] = request.app.exception_handlers
    try:
        return await handler(request)
    except tuple(kind for kind in handlers if kind is not Exception) as error:
        kind = next(kind for kind in type(error).__mro__ if kind in handlers)
        return await handlers[kind](request, error)


def _header_values(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, list[str]]:
    values: dict[bytes, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value.decode("latin-1"))
    return values


def request_id_of(scope: Scope) -> str:
    """The caller's request id if it is valid, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    # It hides nothing, and random numbers from the kernel cost more than the rest of this.
    return given.decode() if _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"
