"""Serves the application until SIGTERM or Ctrl-C, with uvicorn on uvloop.

Then it accepts no new work, requests in progress have until the deadline, and the exit status is 0.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from itertools import count

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from app.api.http.client_connections import ClientConnections, ClientLimits
from app.api.http.load_shedding import LoadShedding
from app.api.http.protocol import HttpProtocol
from app.api.http.shutdown import ShutdownResponder
from app.runtime.file_descriptors import max_clients, raise_descriptor_limit
from app.runtime.gc_tuning import tuned_gc

# The kernel's queue of clients to accept, and the number accepted in one round of the event loop:
# in the next round others are closed for them, and until then all need descriptors.
_BACKLOG = 2048
_ACCEPTED_AT_ONCE = 16
_TICKS_PER_SECOND = 10
# With fewer, dashboards and callers soon use up all connections.
_FEW_CLIENTS = 200
_MALFORMED = "Invalid HTTP request received."

_log = structlog.get_logger(__name__)


class ProcessStatus(IntEnum):
    """The exit status of the service's process.

    LEADERSHIP_LOST: another instance has become active; when started again, this one stands by. It
    is EX_TEMPFAIL in sysexits.h.
    """

    STOPPED = 0
    FAILED = 1
    LEADERSHIP_LOST = 75


ServeFunction = Callable[[uvicorn.Server], Coroutine[None, None, None]]


def run_server(
    app: FastAPI,
    serve: ServeFunction,
    *,
    host: str,
    port: int,
    shutdown_seconds: float,
    limits: ClientLimits,
) -> ProcessStatus:
    """Run *app* with *serve* until SIGTERM or Ctrl-C; return the exit status."""
    # FastAPI builds routes and document on first use, which would block the event loop.
    app.openapi()
    clients = ClientConnections(limits, partial(_limit, app, limits, raise_descriptor_limit()))
    app.state.clients = clients
    config = uvicorn.Config(
        ShutdownResponder(LoadShedding(app, clients), lambda: server.should_exit),
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
    with (
        tuned_gc(),
        handle_stop_signals(),
        _repetitions_unlogged(app),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            runner.run(serve(server))
        except SystemExit:  # uvicorn exits this way if it could not start; it has logged the reason
            return ProcessStatus.FAILED
    return _exit_status(app) if server.started else ProcessStatus.FAILED


def _exit_status(app: FastAPI) -> ProcessStatus:
    service = getattr(app.state, "service", None)
    election = getattr(app.state, "election", None)
    if election is not None and election.lost is not None:
        return ProcessStatus.LEADERSHIP_LOST
    is_dead = service is not None and service.supervisor.dead is not None
    return (
        ProcessStatus.FAILED if is_dead or hasattr(app.state, "refusal") else ProcessStatus.STOPPED
    )


class HttpServer(uvicorn.Server):
    """Uvicorn that ends endless streams at shutdown, and closes connections of late clients."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, clients: ClientConnections) -> None:
        super().__init__(config)
        self._app = app
        self._clients = clients

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with a kernel queue longer than the number accepted at once.

        The service starts only if this is possible.
        """
        if sockets is None:
            await self._check_address()
        await super().startup(sockets)
        limit = self._clients.limit
        if limit < _FEW_CLIENTS:
            _log.warning("few open files are allowed", http_connections=limit)
        for server in self.servers:
            for listener in server.sockets:
                with listener.dup() as same:
                    same.listen(_BACKLOG)

    async def _check_address(self) -> None:
        host, port = self.config.host, self.config.port
        loop = asyncio.get_running_loop()
        try:
            found = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
        except OSError as error:
            reason = (
                f"Cannot listen on port {port} of {host} (POOLKEEPER_PORT, POOLKEEPER_HOST):"
                f" {error.strerror or error}."
            )
            _log.critical("cannot start", reason=reason)
            raise SystemExit(ProcessStatus.FAILED) from error
        found.close()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_SECOND == 0:
            self._clients.close_late()
        return await super().on_tick(counter)

    async def main_loop(self) -> None:
        """Serve until a signal comes, and then until another instance has taken over."""
        await super().main_loop()
        hand_over = getattr(self._app.state, "hand_over", None)
        if hand_over is not None:
            handing_over = asyncio.create_task(hand_over(), name="hand over")
            ticks = count()
            while not (handing_over.done() or self.force_exit):
                await asyncio.wait({handing_over}, timeout=1 / _TICKS_PER_SECOND)
                await self.on_tick(next(ticks))
            handing_over.cancel()
            await asyncio.wait({handing_over})
            if not handing_over.cancelled() and (error := handing_over.exception()) is not None:
                _log.error("hand-over failed", reason=repr(error))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then wait for requests and stop."""
        service = getattr(self._app.state, "service", None)
        if service is not None:
            service.end_streams()
        await super().shutdown(sockets)


def _limit(app: FastAPI, limits: ClientLimits, descriptors: int) -> int:
    """How many clients may connect, given the needs of the servers' connections."""
    service = getattr(app.state, "service", None)
    servers = service.manager.servers.values() if service is not None else ()
    most = max_clients(descriptors, sum(server.budget.limit for server in servers))
    if getattr(app.state, "forwarder", None) is not None:
        most //= 2  # a forwarded request has two connections
    return most if limits.max_connections is None else min(limits.max_connections, most)


@contextmanager
def _repetitions_unlogged(app: FastAPI) -> Iterator[None]:
    """Keep events out of the log that are reported elsewhere.

    These are the application's refusal to start, which uvicorn would repeat as a traceback, and
    malformed requests: they are counted, and strangers must not fill the log.
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
    """Let SIGTERM and Ctrl-C end the block cleanly; yield a function that says whether one came.

    Uvicorn raises them again after it has stopped.
    """
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_process() -> None:
    """Stop as after SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)
