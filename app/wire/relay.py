"""What arrives on a connection: passed to asyncpg, or to a reader in place of asyncpg."""

# mypy: disable-error-code="attr-defined"
# ruff: noqa: SLF001 - asyncpg has no public name for its transport; `tests/pools/test_connection.py`

from __future__ import annotations

import asyncio
from abc import abstractmethod
from types import TracebackType
from typing import Self, cast

import asyncpg

from app.wire.backend_messages import HEADER, header
from app.wire.frontend_messages import executions
from app.wire.joining_transport import JoiningTransport

# Each round of the event loop reads one piece of a flood; uvloop would read 32 pieces of 256 KB.
_FLOOD_BYTES = 32 * 1024
(_COMMAND_COMPLETE,) = b"C"
# Notices, notifications and changed settings.
_UNASKED = frozenset(b"NAS")
# Also ParseComplete, BindComplete and CommandComplete, of a statement that returns no rows.
_EXPECTED = _UNASKED | frozenset(b"12C")


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

    def __init__(self, driver: asyncio.Protocol, transport: JoiningTransport) -> None:
        super().__init__(driver)
        self.reader: asyncio.Protocol | PacedInterceptor = driver
        # How many of the statements sent ahead have no answer yet.
        self._unanswered = 0
        self._transport = transport
        self._incomplete = b""

    @classmethod
    def of(cls, connection: asyncpg.Connection) -> Self:
        """The relay of a connection; it gets one if it has none yet."""
        transport = cast("JoiningTransport", connection._transport)
        relay = transport.get_protocol()
        if not isinstance(relay, cls):
            relay = cls(cast("asyncio.Protocol", connection._protocol), transport)
            transport.set_protocol(relay)
        return relay

    def pass_to(self, reader: asyncio.Protocol | PacedInterceptor) -> None:
        self.reader = reader

    def begin_with_next(self, statements: str) -> None:
        """Begin a transaction by *statements* that are sent together with the next statement.

        asyncpg must believe that they have run already, see `CommitWatch`. They return no rows. If
        one of them fails, the server ignores what was sent with them, and the connection is closed:
        nothing may run without them.

        Raises:
            ConnectionResetError: the connection is closed.
        """
        if self._transport.is_closing():
            raise ConnectionResetError("The connection is closed.")
        messages, self._unanswered = executions(statements)
        self._transport.hold(messages)

    def data_received(self, data: bytes) -> None:
        if self._unanswered:
            data = self._without_answers(data)
            if not data:
                return
        self.reader.data_received(data)

    def _without_answers(self, data: bytes) -> bytes:
        """Return what comes after the answers to the statements sent ahead."""
        data, self._incomplete = self._incomplete + data, b""
        at, size = 0, len(data)
        while self._unanswered and size - at >= HEADER:
            kind, length = header(data, at)
            end = at + 1 + length
            if kind not in _EXPECTED:
                # An error; or what the server never sends here.
                self._transport.abort()
                return b""
            if end > size:
                break
            if kind in _UNASKED:
                self._driver.data_received(data[at:end])
            elif kind == _COMMAND_COMPLETE:
                self._unanswered -= 1
            at = end
        if self._unanswered:
            self._incomplete = data[at:]
            return b""
        return data[at:]

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
