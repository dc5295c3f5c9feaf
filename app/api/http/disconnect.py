"""Handles requests whose client has closed the connection, so that nobody reads the response.

A statement, and its wait for a connection, end with the client; a change of the service runs to its
end. A half-closed connection counts as closed.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

# nginx' status for it; only in the log.
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

    @property
    def has_whole_request(self) -> bool:
        """Whether a request has completely arrived and has no response yet."""

    def notify_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Call *callback* when the client disconnects, or now if it has; None: stop that."""

    def abort(self) -> None:
        """Break the connection, so that the client does not take a part for the whole."""


class CancelOnDisconnect:
    """Cancels a block when the client of its request disconnects.

    The block calls `run_to_the_end` when it must not be cancelled any more, as during a commit. It
    cancels like `asyncio.timeout`, without the cost of a timeout.

    Raises on leaving:
        ClientDisconnected: the block was cancelled.
    """

    def __init__(self, request: Request) -> None:
        self._connection: Connection | None = request.scope["state"].get("connection")
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._is_cancelled = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._connection is not None and self._task is not None:
            self._cancelling = self._task.cancelling()
            self._connection.notify_disconnect(self._cancel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run_to_the_end()
        if self._is_cancelled and self._task is not None:
            is_ours = self._task.uncancel() <= self._cancelling
            if is_ours and kind is asyncio.CancelledError:
                raise ClientDisconnected from error

    def run_to_the_end(self) -> None:
        if self._connection is not None:
            self._connection.notify_disconnect(None)

    def _cancel(self) -> None:
        if self._task is not None and not self._is_cancelled:
            self._is_cancelled = True
            self._task.cancel()


async def _client_disconnected(request: Request, _: Exception) -> Response:
    request.app.state.abandoned += 1
    _log.info(
        "client disconnected",
        method=request.method,
        path=request.url.path,
        status=_CLIENT_CLOSED_REQUEST,
    )
    return Response(status_code=_CLIENT_CLOSED_REQUEST)
