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
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.problems import respond
from app.short_collections import short_collections

# Of each connection. Asyncio would keep 64 KiB, which is a hundred beats of a stream.
_MOST_UNSENT_BYTES = 8192
_CUT_OFF = "The service is stopping; what became of the request is unknown."

Serving = Callable[[uvicorn.Server], Coroutine[None, None, None]]


def run(app: FastAPI, serving: Serving, *, host: str, port: int, shutdown_seconds: float) -> bool:
    """Run *app* by *serving* it until SIGTERM or Ctrl-C; whether it started and ended well."""
    # FastAPI puts off routes and document until they are asked for, and keeps the loop with them.
    app.openapi()
    last_words = LastWords(app)
    config = uvicorn.Config(
        last_words,
        host=host,
        port=port,
        lifespan="on",
        http=Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
    )
    server = Server(config, app)
    last_words.are_said_by(server)
    with short_collections(), signals_end_cleanly(), _refusal_said_once(app):
        asyncio.run(serving(server))
    service = getattr(app.state, "service", None)
    return server.started and service is not None and service.loops.dead is None


class Server(uvicorn.Server):
    """Uvicorn, except that streams, which have no end of their own, do not hold up the stop."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        """Serve as *config* says; the streams are those of *app*."""
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then wait for requests and stop."""
        service = getattr(self._app.state, "service", None)
        if service is not None:
            service.snapshots.end()
        await super().shutdown(sockets)


class Protocol(H11Protocol):
    """HTTP, which keeps next to nothing for clients that do not read.

    What is sent bit by bit waits for them instead: a thousand slow readers of a stream cost little
    memory, and get beats that are new.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        transport.set_write_buffer_limits(high=_MOST_UNSENT_BYTES)
        super().connection_made(transport)


class LastWords:
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
            answer = respond(Request(scope), 503, "service-stopping", _CUT_OFF)
            await answer(scope, receive, send_closing)

    @property
    def _is_stopping(self) -> bool:
        return self._server is not None and self._server.should_exit


@contextmanager
def _refusal_said_once(app: FastAPI) -> Iterator[None]:
    """What the application says in a sentence, uvicorn would repeat as a traceback."""

    def is_no_repetition(record: logging.LogRecord) -> bool:
        return not (hasattr(app.state, "refusal") and record.getMessage().startswith("Traceback"))

    log = logging.getLogger("uvicorn.error")
    log.addFilter(is_no_repetition)
    try:
        yield
    finally:
        log.removeFilter(is_no_repetition)


@contextmanager
def signals_end_cleanly() -> Iterator[Callable[[], bool]]:
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
