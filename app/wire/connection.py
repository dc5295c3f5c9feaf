"""A connection that sends cancel requests to its own server's address.

asyncpg itself resolves the host name again for each cancel request, and may then ask another
server. This file uses asyncpg's private names. asyncpg's version is pinned;
`tests/wire/test_cancel.py` fails when an upgrade changes one of them.
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

# Seconds for the cancel request alone; the caller's deadlines limit the end of the statement.
_CANCEL_DEADLINE = 5.0


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
