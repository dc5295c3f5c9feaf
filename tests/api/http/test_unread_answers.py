"""Responses to clients that do not read: almost nothing is kept for them."""

import asyncio
import socket

from starlette.types import Receive, Scope, Send

from tests.fixtures.listening import listening
from tests.fixtures.waiting import eventually

PIECE = b"x" * 1000
# Space in the kernel, which takes double.
ROOM = 4096


async def test_unread_responses_are_not_buffered() -> None:
    sent = 0

    async def without_end(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            sent += 1
            await asyncio.sleep(0)

    listener, reader = socket.socket(), socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    async with listening(without_end, listener=listener) as address:
        reader.setblocking(False)  # noqa: FBT003 - socket's signature
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, address)
        await loop.sock_sendall(reader, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await eventually(lambda: sent > 5)
        seen = -1

        def is_at_rest() -> bool:
            nonlocal seen
            before, seen = seen, sent
            return before == seen

        await eventually(is_at_rest)
        assert sent < 40
        reader.close()
