"""A request and its response: their deadlines, the body's size, the response's headers.

A body that arrives too slowly gets 408. Work that takes too long gets 504 and continues to its end:
a change aborted half-way would leave catalog and pools inconsistent, and all work has its own
deadlines. A response that has begun, such as a stream, has no deadline here.
"""

import asyncio
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from app.api.http.body_limits import BODY_TOO_LARGE, MAX_BODY_BYTES
from app.api.http.compression import GzipSender
from app.api.http.disconnect import Connection
from app.api.http.error_responses import problem_response
from app.api.http.idempotency import KeyReservation
from app.api.http.response_headers import RAW_SECURITY_HEADERS

_BODY_TIMEOUT = "The body did not arrive in time."
_RESPONSE_TIMEOUT = "The request exceeds its deadline. It continues; its result is unknown."


class Exchange:
    """Receives a request and sends its response."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: str,
        *,
        accepts_gzip: bool = False,
        more_headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """*more_headers*: headers of the response, whatever it is."""
        self._reservation: KeyReservation | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._more_headers = [(b"x-request-id", request_id.encode()), *more_headers]
        self._is_head = scope["state"].get("is_head", False)
        self._connection: Connection | None = scope["state"].get("connection")
        self._gzip = GzipSender() if accepts_gzip else None
        self._is_reading = self._is_read = self._has_begun = False
        self._received = 0
        self._loop = asyncio.get_running_loop()
        self._seconds = self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timeout_response: asyncio.Task[None] | None = None

    def record_for(self, reservation: KeyReservation) -> None:
        """Let *reservation*, of the request's idempotency key, record what is sent."""
        self._reservation = reservation

    def set_deadline(self, seconds: float) -> None:
        """Set the seconds for the body to arrive, and from then for the response to begin."""
        self._seconds = seconds
        self._due = self._loop.time() + seconds
        self._start_timer()

    def extend(self, seconds: float) -> None:
        self._due += seconds

    async def receive(self) -> Message:
        """Receive the next message from the client.

        Raises:
            HTTPException: 408 if it does not arrive in time, 413 if the body is too large.
        """
        if self._is_read:
            return await self._receive()
        if self._connection is not None and self._connection.has_whole_request:
            message = await self._receive()
        else:
            message = await self._receive_in_time()
        self._received += len(message.get("body", b""))
        if self._received > MAX_BODY_BYTES:
            raise HTTPException(413, BODY_TOO_LARGE)
        if not message.get("more_body", False):
            self._is_read = True
            self._due = self._loop.time() + self._seconds
            self._start_timer()
        return message

    async def _receive_in_time(self) -> Message:
        self._is_reading = True
        try:
            async with asyncio.timeout_at(self._due):
                return await self._receive()
        except TimeoutError as error:
            # The rest of the body may still come, so this connection cannot be used again.
            raise HTTPException(408, _BODY_TIMEOUT, {"Connection": "close"}) from error
        finally:
            self._is_reading = False

    async def send(self, message: Message) -> None:
        """Pass the response on, unless it is too late."""
        if self._reservation is not None:
            self._reservation.record(message)
        if self._timeout_response is None:
            self._has_begun = True
            self._stop_timer()
            if self._gzip is None:
                await self._send_complete(message)
            else:
                await self._gzip.send(message, self._send_complete)

    async def close(self) -> None:
        """End the exchange, after the response was sent."""
        self._stop_timer()
        if self._reservation is not None:
            self._reservation.end()
        if self._timeout_response is not None:
            await self._timeout_response

    def _start_timer(self) -> None:
        """Start the timer unless it runs; when it fires, it checks what is due."""
        if self._timer is None and not self._has_begun:
            self._timer = self._loop.call_at(self._due, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self._is_reading or self._has_begun:
            return
        if self._loop.time() < self._due:
            self._start_timer()
            return
        self._timeout_response = asyncio.create_task(self._send_timeout(), name="request: deadline")

    async def _send_timeout(self) -> None:
        request = Request(self._scope)
        # The change continues: a retry would make it twice, unless its idempotency key marks it as
        # the same.
        is_safe = request.method in {"GET", "HEAD"} or "idempotency-key" in request.headers
        headers = {"Connection": "close"} | ({"Retry-After": "1"} if is_safe else {})
        response = problem_response(
            request, 504, "deadline-exceeded", _RESPONSE_TIMEOUT, retryable=is_safe, headers=headers
        )
        await response(self._scope, self._receive, self._send_complete)

    async def _send_complete(self, message: Message) -> None:
        """Send with the headers that every response has, and without a body for HEAD."""
        if message["type"] == "http.response.start":
            headers = [*message["headers"], *self._more_headers]
            present = {name for name, _ in headers}
            headers += [header for header in RAW_SECURITY_HEADERS if header[0] not in present]
            message = {**message, "headers": headers}
        elif self._is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def extend_deadline(request: Request, seconds: float) -> None:
    """Give this request *seconds* more, because its caller or the operator allows it."""
    exchange: Exchange = request.scope["state"]["exchange"]
    exchange.extend(seconds)
