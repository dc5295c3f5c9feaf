"""Requests whose client has closed the connection: nobody reads the response.

A statement, and the wait for a connection to run it on, end with their client; a change of the
service runs to its end. A half-closed connection counts as closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

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


@asynccontextmanager
async def cancel_on_disconnect(request: Request) -> AsyncIterator[Callable[[], None]]:
    """Cancel the block when the client disconnects; the body must have been read.

    The block calls the yielded function once it must run to its end, as a commit must.

    Raises:
        ClientDisconnected: the block was cancelled.
    """
    timeout = asyncio.timeout(None)

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        timeout.reschedule(asyncio.get_running_loop().time())

    listener = asyncio.create_task(listen(), name="request: wait for disconnect")

    def run_to_the_end() -> None:
        listener.cancel()
        timeout.reschedule(None)

    try:
        async with timeout:
            yield run_to_the_end
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise ClientDisconnected from error
    finally:
        listener.cancel()


async def _client_disconnected(request: Request, _: Exception) -> Response:
    request.app.state.abandoned += 1
    _log.info(
        "client disconnected",
        method=request.method,
        path=request.url.path,
        status=_CLIENT_CLOSED_REQUEST,
    )
    return Response(status_code=_CLIENT_CLOSED_REQUEST)
