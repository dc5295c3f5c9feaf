"""No request lasts for ever: a deadline for its body to arrive, and one for its answer.

Who sends a body too slowly is answered 408. Work that takes too long is answered 504 and goes
on to its end without its caller: a change cut off half-way would leave the catalog and the
pools at odds, and everything below has deadlines of its own. An answer that has begun, such as
a stream, is nobody's business here.
"""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http.error_responses import problem_response

_NO_BODY = "The body did not arrive in time."
_TOO_LONG = "It takes longer than it may; it goes on, and what becomes of it is unknown."


class RequestDeadline:
    """Gives every request its time."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        """Give bodies *seconds* to arrive, and answers of *app* as long from then on."""
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer in its stead when its time is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._seconds)
        scope.setdefault("state", {})["deadline"] = exchange
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            await exchange.close()


def extend_deadline(request: Request, seconds: float) -> None:
    """Give this request *seconds* more: its caller, or the operator, said that it may take them."""
    exchange: _Exchange = request.state.deadline
    exchange.extend(seconds)


class _Exchange:
    """One request and its answer, on the clock."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._seconds = seconds
        self._is_reading = self._is_read = self._is_begun = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._ring)
        self._farewell: asyncio.Task[None] | None = None

    def extend(self, seconds: float) -> None:
        """Let it take so much longer."""
        self._set(self._timer.when() + seconds)

    async def receive(self) -> Message:
        """What comes from the client; 408 when it does not come in time."""
        if self._is_read:
            return await self._receive()
        self._is_reading = True
        try:
            async with asyncio.timeout_at(self._timer.when()):
                message = await self._receive()
        except TimeoutError as error:
            # The rest of the body may still come: nothing else can on this connection.
            raise HTTPException(408, _NO_BODY, {"Connection": "close"}) from error
        finally:
            self._is_reading = False
        if not message.get("more_body", False):
            self._is_read = True
            self._set(self._loop.time() + self._seconds)
        return message

    async def send(self, message: Message) -> None:
        """Pass the answer on, unless it comes too late."""
        if self._farewell is None:
            self._is_begun = True
            self._timer.cancel()
            await self._send(message)

    async def close(self) -> None:
        """Ring no more."""
        self._timer.cancel()
        if self._farewell is not None:
            await self._farewell

    def _set(self, when: float) -> None:
        if not self._is_begun and self._farewell is None:
            self._timer.cancel()
            self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        if not self._is_begun and not self._is_reading:
            self._farewell = asyncio.create_task(self._give_up(), name="request: deadline")

    async def _give_up(self) -> None:
        request = Request(self._scope)
        # A change that goes on would be made twice, unless its key tells that it is the same.
        is_safe = request.method in {"GET", "HEAD"} or "idempotency-key" in request.headers
        headers = {"Connection": "close"} | ({"Retry-After": "1"} if is_safe else {})
        answer = problem_response(
            request, 504, "deadline-exceeded", _TOO_LONG, retryable=is_safe, headers=headers
        )
        await answer(self._scope, self._receive, self._send)
