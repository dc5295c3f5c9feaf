"""How the application is served and how that ends: uvicorn, signals, the last requests.

SIGTERM and Ctrl-C: no new work, requests in hand get until the deadline, exit status 0.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

Serving = Callable[[uvicorn.Server], Coroutine[None, None, None]]


def run(app: FastAPI, serving: Serving, *, host: str, port: int, shutdown_seconds: float) -> bool:
    """Run *app* by *serving* it until SIGTERM or Ctrl-C; whether it started and ended well."""
    last_words = LastWords(app)
    config = uvicorn.Config(
        last_words,
        host=host,
        port=port,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
    )
    server = uvicorn.Server(config)
    last_words.are_said_by(server)
    # What the application says in a sentence, uvicorn would repeat as a traceback.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: (
            not (hasattr(app.state, "refusal") and record.getMessage().startswith("Traceback"))
        )
    )
    with signals_end_cleanly():
        asyncio.run(serving(server))
    service = getattr(app.state, "service", None)
    return server.started and service is not None and service.loops.dead is None


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
        """Pass everything on; add a header to responses at the end."""

        async def send_closing(message: MutableMapping[str, Any]) -> None:
            stopping = self._server is not None and self._server.should_exit
            if stopping and message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_closing)


@contextmanager
def signals_end_cleanly() -> Iterator[None]:
    """Uvicorn raises the signal again once it has stopped: let that be no death by signal."""
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
