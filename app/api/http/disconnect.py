"""An abandoned request: its client has closed the connection, so nobody reads the answer.

A statement, and the wait for a connection to run it on, end with their client; a change of the
service's own runs to its end. Half of a close counts too: who sends no more is taken for gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

# nginx' number for it. It is in the log and in no answer: no one is there to get one.
_CLIENT_CLOSED_REQUEST = 499

_log = structlog.get_logger(__name__)


class ClientDisconnected(HTTPException):
    """The client has disconnected."""

    def __init__(self) -> None:
        """Have it logged as nginx does."""
        super().__init__(_CLIENT_CLOSED_REQUEST, "The client disconnected.")


def install(app: FastAPI) -> None:
    """End abandoned requests of *app* quietly, and count them."""
    app.state.abandoned = 0
    app.add_exception_handler(ClientDisconnected, _abandoned)


@asynccontextmanager
async def cancel_on_disconnect(request: Request) -> AsyncIterator[Callable[[], None]]:
    """Cancel the block when the client disconnects.

    Call what is given once the block must run to its end, as a commit must. The body of *request*
    must have been read.

    Raises:
        Abandoned: the client is gone, and the block was cancelled.
    """
    scope = asyncio.timeout(None)

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.reschedule(asyncio.get_running_loop().time())

    listener = asyncio.create_task(listen(), name="request: waits for a disconnect")

    def run_to_the_end() -> None:
        listener.cancel()
        scope.reschedule(None)

    try:
        async with scope:
            yield run_to_the_end
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise ClientDisconnected from error
    finally:
        listener.cancel()


async def _abandoned(request: Request, _: Exception) -> Response:
    request.app.state.abandoned += 1
    _log.info(
        "request abandoned by its client",
        method=request.method,
        path=request.url.path,
        status=_CLIENT_CLOSED_REQUEST,
    )
    return Response(status_code=_CLIENT_CLOSED_REQUEST)
