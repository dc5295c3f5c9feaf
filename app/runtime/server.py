"""How the application is served and how that ends: uvicorn, signals, the last requests.

SIGTERM and Ctrl-C: no new work, requests in hand get until the deadline, exit status 0.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.http.client_connections import ClientConnections, ClientLimits
from app.api.http.error_responses import problem_response
from app.api.http.load_shedding import LoadShedding
from app.api.http.protocol import HttpProtocol
from app.runtime.file_descriptors import max_clients, raise_descriptor_limit
from app.runtime.gc_tuning import tuned_gc

# Clients that the kernel lets wait to be accepted, and how many are accepted in one turn of the
# loop: in the next turns others are closed for them, and until then all need descriptors.
_BACKLOG = 2048
_ACCEPTED_AT_ONCE = 16
_TICKS_A_SECOND = 10
# Fewer are soon used up by dashboards and callers.
_FEW_CLIENTS = 200
_MALFORMED = "Invalid HTTP request received."
_CUT_OFF = "The service is stopping; what became of the request is unknown."

_log = structlog.get_logger(__name__)

ServeFunction = Callable[[uvicorn.Server], Coroutine[None, None, None]]


def run_server(
    app: FastAPI,
    serving: ServeFunction,
    *,
    host: str,
    port: int,
    shutdown_seconds: float,
    limits: ClientLimits,
) -> bool:
    """Run *app* by *serving* it until SIGTERM or Ctrl-C; whether it started and ended well."""
    # FastAPI puts off routes and document until they are asked for, and keeps the loop with them.
    app.openapi()
    clients = ClientConnections(
        limits, partial(_most_clients, app, limits, raise_descriptor_limit())
    )
    app.state.clients = clients
    last_words = ShutdownResponder(LoadShedding(app, clients))
    config = uvicorn.Config(
        last_words,
        host=host,
        port=port,
        lifespan="on",
        http=partial(HttpProtocol, clients=clients),  # type: ignore[arg-type]
        ws="none",
        backlog=_ACCEPTED_AT_ONCE,
        timeout_keep_alive=limits.keep_alive,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
    )
    server = HttpServer(config, app, clients)
    last_words.are_said_by(server)
    with tuned_gc(), handle_stop_signals(), _said_by_us(app):
        try:
            asyncio.run(serving(server))
        except SystemExit:  # uvicorn's way to say that it did not start; it has logged why
            return False
    service = getattr(app.state, "service", None)
    return server.started and service is not None and service.supervisor.dead is None


class HttpServer(uvicorn.Server):
    """Uvicorn, except that streams, which have no end of their own, do not hold up the stop.

    It also closes connections whose clients are too late.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, clients: ClientConnections) -> None:
        """Serve *clients* as *config* says; the streams are those of *app*."""
        super().__init__(config)
        self._app = app
        self._clients = clients

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, with the kernel's queue longer than what is accepted at once."""
        await super().startup(sockets)
        most = self._clients.limit
        if most < _FEW_CLIENTS:
            _log.warning("few open files are allowed", http_connections=most)
        service = getattr(self._app.state, "service", None)
        if service is not None:
            service.streams.limit_to(most // 2)
        for server in self.servers:
            for listener in server.sockets:
                with listener.dup() as same:
                    same.listen(_BACKLOG)

    async def on_tick(self, counter: int) -> bool:
        """Close what clients leave lying, once a second."""
        if counter % _TICKS_A_SECOND == 0:
            self._clients.close_late()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then wait for requests and stop."""
        service = getattr(self._app.state, "service", None)
        if service is not None:
            service.snapshots.close()
        await super().shutdown(sockets)


class ShutdownResponder:
    """Tells clients to close their connections once the server is stopping.

    Uvicorn does so only for connections it knew when the signal came; one accepted in that
    moment would otherwise go on bringing new requests until they are cut.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap *app*."""
        self._app = app
        self._server: uvicorn.Server | None = None

    def are_said_by(self, server: uvicorn.Server) -> None:
        """Ask *server* whether it is stopping."""
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; at the end add a header, and answer those who are cut off."""
        begun = False

        async def send_closing(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            if self._is_stopping and message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_closing)
        except asyncio.CancelledError:
            if begun or not self._is_stopping or scope["type"] != "http":
                raise
            answer = problem_response(Request(scope), 503, "service-stopping", _CUT_OFF)
            await answer(scope, receive, send_closing)

    @property
    def _is_stopping(self) -> bool:
        return self._server is not None and self._server.should_exit


def _most_clients(app: FastAPI, limits: ClientLimits, descriptors: int) -> int:
    """How many clients may connect, given what the servers' connections need."""
    service = getattr(app.state, "service", None)
    servers = service.manager.servers.values() if service is not None else ()
    room = max_clients(descriptors, sum(server.budget.limit for server in servers))
    return room if limits.max_connections is None else min(limits.max_connections, room)


@contextmanager
def _said_by_us(app: FastAPI) -> Iterator[None]:
    """Keep out of the log what the service tells otherwise.

    The application's refusal to start, which uvicorn would repeat as a traceback, and malformed
    requests: they are counted, and strangers must not fill the log.
    """

    def is_news(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_repetition = hasattr(app.state, "refusal") and message.startswith("Traceback")
        return not (is_repetition or message == _MALFORMED)

    log = logging.getLogger("uvicorn.error")
    log.addFilter(is_news)
    try:
        yield
    finally:
        log.removeFilter(is_news)


@contextmanager
def handle_stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C are no death by signal; given is a question: whether one came.

    Uvicorn raises them again once it has stopped.
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
