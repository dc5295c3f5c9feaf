"""Deadlines of every request: one for its body to arrive, one for its response to begin.

A body that arrives too slowly gets 408. Work that takes too long gets 504 and goes on to its end:
a change cut off half-way would leave the catalog and the pools at odds, and everything below has
deadlines of its own. A response that has begun, such as a stream, has no deadline here.
"""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http.error_responses import problem_response

_BODY_TIMEOUT = "The body did not arrive in time."
_RESPONSE_TIMEOUT = "The request exceeds its deadline. It continues; its result is unknown."


class RequestDeadline:
    """Puts every request on the clock."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        """*seconds*: for the body to arrive, and as many from then for the response to begin."""
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _TimedExchange(scope, receive, send, self._seconds)
        scope.setdefault("state", {})["deadline"] = exchange
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            await exchange.close()


def extend_deadline(request: Request, seconds: float) -> None:
    """Give this request *seconds* more: its caller, or the operator, allows it to take them."""
    exchange: _TimedExchange = request.state.deadline
    exchange.extend(seconds)


class _TimedExchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._seconds = seconds
        self._is_reading = self._is_read = self._has_begun = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._expire)
        self._timeout_response: asyncio.Task[None] | None = None

    def extend(self, seconds: float) -> None:
        self._set_timer(self._timer.when() + seconds)

    async def receive(self) -> Message:
        """The next message from the client; raises 408 when it does not arrive in time."""
        if self._is_read:
            return await self._receive()
        self._is_reading = True
        try:
            async with asyncio.timeout_at(self._timer.when()):
                message = await self._receive()
        except TimeoutError as error:
            # The rest of the body may still come, so this connection is of no more use.
            raise HTTPException(408, _BODY_TIMEOUT, {"Connection": "close"}) from error
        finally:
            self._is_reading = False
        if not message.get("more_body", False):
            self._is_read = True
            self._set_timer(self._loop.time() + self._seconds)
        return message

    async def send(self, message: Message) -> None:
        """Pass the response on, unless it comes too late."""
        if self._timeout_response is None:
            self._has_begun = True
            self._timer.cancel()
            await self._send(message)

    async def close(self) -> None:
        self._timer.cancel()
        if self._timeout_response is not None:
            await self._timeout_response

    def _set_timer(self, when: float) -> None:
        if not self._has_begun and self._timeout_response is None:
            self._timer.cancel()
            self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        if not self._has_begun and not self._is_reading:
            self._timeout_response = asyncio.create_task(
                self._send_timeout(), name="request: deadline"
            )

    async def _send_timeout(self) -> None:
        request = Request(self._scope)
        # The change goes on: a retry would make it twice, unless its key marks it as the same.
        is_safe = request.method in {"GET", "HEAD"} or "idempotency-key" in request.headers
        headers = {"Connection": "close"} | ({"Retry-After": "1"} if is_safe else {})
        response = problem_response(
            request, 504, "deadline-exceeded", _RESPONSE_TIMEOUT, retryable=is_safe, headers=headers
        )
        await response(self._scope, self._receive, self._send)
