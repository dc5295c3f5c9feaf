"""A connection that cancels its statements where it is, not where its host name leads by then.

Touches asyncpg's private names: it looks the name up once more for each cancellation, and may
then ask another server. asyncpg's version is pinned; `tests/wire/test_cancel.py` tells when an
upgrade changes one of them.
"""

# mypy: disable-error-code="attr-defined,no-untyped-call,arg-type,misc"
# ruff: noqa: SLF001 - see above

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import asyncpg
from asyncpg import connect_utils
from asyncpg.protocol import Protocol as AsyncpgProtocol

from app.wire.handshake import Handshake

# For the request alone, in seconds; the statement's own end has the caller's deadlines.
_CANCEL_DEADLINE = 5.0


class PinnedLoop(Protocol):
    """An event loop that connects to one address only, whatever it is asked for.

    Attributes:
        handshake: the login that it guarded last.
    """

    loop: asyncio.AbstractEventLoop
    handshake: Handshake | None


class WireConnection(asyncpg.Connection):
    """A connection that, once it is open, lives in the real event loop.

    Attributes:
        custom_codecs: the types whose codecs were changed: name and schema, by oid.
        scram_iterations: how often its login stretched the password, None without SCRAM.
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
        # Every way to change a codec begins with this, and nothing else does.
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
            # Its connection is being closed, as in asyncpg; the waiter gets its result below.
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
    """Reads a transport in place of asyncpg, to which all but the data passes."""

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
