"""Requests whose client has closed the connection: nobody reads the response.

A statement, and the wait for a connection to run it on, end with their client; a change of the
service runs to its end. A half-closed connection counts as closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

# nginx' number for it; only in the log.
_CLIENT_CLOSED_REQUEST = 499

_log = structlog.get_logger(__name__)


class ClientDisconnected(HTTPException):
    """The client has closed the connection."""

    def __init__(self) -> None:
        super().__init__(_CLIENT_CLOSED_REQUEST, "The client disconnected.")


def install(app: FastAPI) -> None:
    """Log and count these requests of *app*."""
    app.state.abandoned = 0
    app.add_exception_handler(ClientDisconnected, _client_disconnected)


class Connection(Protocol):
    """The client's connection, in `request.state.connection`; requests in memory have none."""

    def notify_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Call back when the client disconnects, or now if it has; None for no longer."""

    def abort(self) -> None:
        """Break the connection, so that the client does not take a part for the whole."""


@asynccontextmanager
async def cancel_on_disconnect(request: Request) -> AsyncIterator[Callable[[], None]]:
    """Cancel the block when the client disconnects.

    The block calls the yielded function once it must run to its end, as a commit must.

    Raises:
        ClientDisconnected: the block was cancelled.
    """
    connection: Connection | None = request.scope["state"].get("connection")
    timeout = asyncio.timeout(None)

    def notify(callback: Callable[[], None] | None) -> None:
        if connection is not None:
            connection.notify_disconnect(callback)

    def run_to_the_end() -> None:
        notify(None)
        timeout.reschedule(None)

    try:
        async with timeout:
            notify(lambda: timeout.reschedule(asyncio.get_running_loop().time()))
            yield run_to_the_end
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise ClientDisconnected from error
    finally:
        notify(None)


async def _client_disconnected(request: Request, _: Exception) -> Response:
    request.app.state.abandoned += 1
    _log.info(
        "client disconnected",
        method=request.method,
        path=request.url.path,
        status=_CLIENT_CLOSED_REQUEST,
    )
    return Response(status_code=_CLIENT_CLOSED_REQUEST)
