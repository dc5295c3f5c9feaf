"""A connection that sends cancel requests to its own server's address.

asyncpg itself resolves the host name again for each cancel request, and may then ask another
server. This file uses asyncpg's private names. asyncpg's version is pinned;
`tests/wire/test_cancel.py` fails when an upgrade changes one of them.
"""

# mypy: disable-error-code="attr-defined,no-untyped-call,arg-type,misc"
# ruff: noqa: SLF001 - see above

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, cast

import asyncpg
from asyncpg import connect_utils
from asyncpg.protocol import Protocol as AsyncpgProtocol

from app.wire.handshake import Handshake

# Seconds for the cancel request alone; the caller's deadlines limit the end of the statement.
_CANCEL_DEADLINE = 5.0
# Each round of the event loop reads one piece of a flood; uvloop would read 32 pieces of 256 KB.
_FLOOD_BYTES = 32 * 1024


class PinnedLoop(Protocol):
    """An event loop that connects to one address only, whatever address is requested.

    Attributes:
        handshake: the login that it guarded last.
    """

    loop: asyncio.AbstractEventLoop
    handshake: Handshake | None


class WireConnection(asyncpg.Connection):
    """A connection that uses the real event loop once it is open.

    Attributes:
        custom_codecs: the types whose codecs were changed: name and schema, by oid.
        scram_iterations: the SCRAM iterations of its login; None without SCRAM.
    """

    __slots__ = ("_pinned_loop", "custom_codecs", "scram_iterations")

    def __init__(
        self,
        protocol: AsyncpgProtocol,
        transport: asyncio.Transport,
        pinned_loop: PinnedLoop,
        *rest: Any,
    ) -> None:
        super().__init__(protocol, transport, pinned_loop.loop, *rest)
        self._pinned_loop = pinned_loop
        handshake = pinned_loop.handshake
        self.scram_iterations = handshake.scram_iterations if handshake else None
        self.custom_codecs: dict[int, tuple[str, str]] = {}

    async def _introspect_type(self, typename: str, schema: str) -> asyncpg.Record:
        # Every change of a codec begins with this, and nothing else does.
        found: asyncpg.Record = await super()._introspect_type(typename, schema)
        self.custom_codecs[found["oid"]] = (typename, schema)
        return found

    async def _cancel(
        self, waiter: asyncio.Future[None], cancel_waiter: asyncio.Future[None] | None = None
    ) -> None:
        try:
            # Some servers reset the connection that brought the request.
            with suppress(ConnectionResetError):
                async with asyncio.timeout(_CANCEL_DEADLINE):
                    await connect_utils._cancel(
                        loop=self._pinned_loop,
                        addr=self._addr,
                        params=self._params,
                        backend_pid=self._protocol.backend_pid,
                        backend_secret=self._protocol.backend_secret,
                    )
            if not waiter.done():
                waiter.set_result(None)
            if cancel_waiter is not None:
                await asyncio.shield(cancel_waiter)
        except asyncio.CancelledError:
            # As in asyncpg, its connection is being closed; the waiter gets its result below.
            pass
        except (OSError, asyncpg.InterfaceError):
            # Whether the statement ended is unknown.
            if not self._aborted:
                self.terminate()
        finally:
            self._cancellations.discard(asyncio.current_task(self._loop))
            if not waiter.done():
                waiter.set_result(None)


class Interceptor(asyncio.Protocol):
    """Reads a transport in place of asyncpg; events other than data go to asyncpg."""

    def __init__(self, driver: asyncio.Protocol) -> None:
        self._driver = driver

    def eof_received(self) -> bool | None:
        return self._driver.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.connection_lost(exc)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


class Relay(Interceptor):
    """Passes what arrives to asyncpg, or to its present reader in place of asyncpg.

    It stays on the transport: a change of the transport's protocol makes uvloop stop reading and
    start again, which takes several system calls.
    """

    def __init__(self, driver: asyncio.Protocol) -> None:
        super().__init__(driver)
        self.reader: asyncio.Protocol | PacedInterceptor = driver

    @classmethod
    def of(cls, connection: asyncpg.Connection) -> Self:
        """The relay of a connection; it gets one if it has none yet."""
        transport = cast("asyncio.Transport", connection._transport)
        relay = transport.get_protocol()
        if not isinstance(relay, cls):
            relay = cls(cast("asyncio.Protocol", connection._protocol))
            transport.set_protocol(relay)
        return relay

    def pass_to(self, reader: asyncio.Protocol | PacedInterceptor) -> None:
        self.reader = reader

    def data_received(self, data: bytes) -> None:
        self.reader.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reader.connection_lost(exc)


class PacedInterceptor:
    """Reads a connection inside a block.

    It reads a flood of rows or notices piece by piece, so that it never blocks the event loop.

    Raises:
        ConnectionError: the connection is closed.
    """

    _is_left = False

    def __init__(self, connection: asyncpg.Connection) -> None:
        if connection.is_closed() or connection._transport.is_closing():
            raise ConnectionResetError("The connection is closed.")
        self._driver = cast("asyncio.Protocol", connection._protocol)
        self._transport = cast("asyncio.Transport", connection._transport)
        self._relay = Relay.of(connection)

    def __enter__(self) -> Self:
        self._relay.pass_to(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_left = True
        self._hand_back()

    @abstractmethod
    def _hand_back(self) -> None:
        """Let asyncpg read again, as soon as it can."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process *data*; if it is long, one piece per round of the event loop."""
        if len(data) < _FLOOD_BYTES:
            self._take_piece(data)
        else:
            self._transport.pause_reading()
            self._take_pieces(data)

    def _take_pieces(self, data: bytes) -> None:
        if self._transport.is_closing():
            return  # nobody waits for it
        self._take_piece(data[:_FLOOD_BYTES])
        loop, rest = asyncio.get_running_loop(), data[_FLOOD_BYTES:]
        if rest:
            loop.call_soon(self._take_pieces, rest)
        else:
            loop.call_soon(self._transport.resume_reading)

    @abstractmethod
    def _take_piece(self, data: bytes) -> None:
        """Process the next bytes; they may come after the block."""
