"""A transport that sends messages together with those that asyncpg sends next."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast


class JoiningTransport:
    """A connection's transport, as asyncpg and the interceptors see it.

    A message of its own would cost the server another wake-up, and us another system call.
    """

    __slots__ = ("_held", "_transport", "get_protocol", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = b""
        # Without these, each call would first fail to find an attribute.
        self.is_closing = transport.is_closing
        self.get_protocol = transport.get_protocol

    @classmethod
    def over(cls, transport: asyncio.Transport) -> asyncio.Transport:
        """One that stands for *transport*."""
        return cast("asyncio.Transport", cls(transport))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - everything else is its own
        return getattr(self._transport, name)

    def hold(self, messages: bytes) -> None:
        """Send *messages* with whatever is written next."""
        self._held = messages

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._held:
            data, self._held = b"".join((self._held, data)), b""
        self._transport.write(data)

    def writelines(self, buffers: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(buffers))
