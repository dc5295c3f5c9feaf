"""The body of a forwarded request: passed on as it arrives, and kept if it is small."""

import asyncio
from contextlib import suppress

from starlette.types import Message, Receive, Scope

from app.api.forwarding.upstream import Upstream

# The number of bytes kept, so that the request can be sent again.
_MAX_KEPT = 65_536
# In seconds. The active instance waits for the rest: it has a deadline for bodies.
_FIRST_PART = 1.0


class ClientLeft(Exception):
    """The client has closed the connection."""


class ForwardedBody:
    """The body of a request.

    Attributes:
        is_kept: whether it can still be sent from its beginning.
        is_chunked: whether its length is unknown beforehand.
        is_whole: whether all of it has been received.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        names = [name for name, _ in scope["headers"]]
        self.is_chunked = b"transfer-encoding" in names
        self.is_kept = True
        self.is_whole = not (self.is_chunked or b"content-length" in names)
        self._receive = receive
        self._parts: list[bytes] = []
        self._size = 0

    async def begin(self) -> bytes:
        """Return the part to send together with the request's head: nothing if the body is late.

        Raises:
            ClientLeft: the client did not wait.
        """
        if not self._parts and not self.is_whole:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_PART):
                    await self._next()
        return b"".join(map(self._framed, self._parts)) + self._end()

    async def send_rest(self, upstream: Upstream) -> None:
        """Send the rest of the body.

        Raises:
            ClientLeft: the client did not send it.
            UpstreamLost: the active instance is gone.
        """
        while not self.is_whole:
            part = self._framed(await self._next())
            await upstream.write(part + self._end())

    async def receive_again(self) -> Message:
        """Receive from the beginning again, as if from the client."""
        if self._parts:
            part = self._parts.pop(0)
            return {
                "type": "http.request",
                "body": part,
                "more_body": bool(self._parts) or not self.is_whole,
            }
        return await self._receive()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part: bytes = message.get("body", b"")
        self.is_whole = not message.get("more_body", False)
        self._size += len(part)
        if not self._parts or (self.is_kept and self._size <= _MAX_KEPT):
            self._parts.append(part)
        else:
            self.is_kept = False
        return part

    def _framed(self, part: bytes) -> bytes:
        if not self.is_chunked or not part:
            return part
        return b"%x\r\n%s\r\n" % (len(part), part)

    def _end(self) -> bytes:
        return b"0\r\n\r\n" if self.is_chunked and self.is_whole else b""
