"""Open a connection: every parameter is given, and the server is watched until we are logged in.

Without a DSN, and with nothing left for asyncpg to look up: no variable, password file, service
file or certificate of this machine has a say. Must not judge what its errors mean to whom.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.protocol import Protocol

from app.wire.errors import NoAnswer, Refused, Unfinished, local_failure
from app.wire.handshake import Handshake, Violation

Tls = ssl.SSLContext | Literal[False]

# What asyncpg raises when it reads what nobody should have sent.
_UNREADABLE = (BufferError, LookupError, UnicodeDecodeError)


async def connect(
    *,
    host: str,
    port: int,
    user: str,
    password: str,
    database: str,
    tls: Tls,
    timeout: float,
    settings: Mapping[str, str],
    primary: bool = False,
    command_timeout: float | None = None,
) -> asyncpg.Connection:
    """Log in within *timeout* seconds.

    Args:
        host: name or address, or the directory of a Unix socket.
        port: of that host.
        user: the role.
        password: proved by SCRAM; given away only to a server that TLS has verified.
        database: the database.
        tls: how TLS is spoken, or False for not at all; never tried and then done without.
        timeout: for everything, in seconds.
        settings: server settings fixed for the connection's life.
        primary: whether a standby, which takes no writes, is refused.
        command_timeout: default for every statement, in seconds.

    Raises:
        Refused: the server is not who it should be, or misbehaves.
        NoAnswer, Unfinished: it did not answer, or not finish the login, in time.
        LocalFailure: this machine cannot connect.
        OSError, asyncpg.InterfaceError, asyncpg.PostgresError: as asyncpg has them.
    """
    watch = _Watch(asyncio.get_running_loop(), is_verified=_is_verified(tls))
    try:
        return await asyncpg.connect(  # noqa: TID251 - here, and nowhere else
            host=host,
            port=port,
            user=user,
            password=password,
            database=database,
            ssl=tls,
            direct_tls=False,
            passfile=os.devnull,
            servicefile=os.devnull,
            krbsrvname="postgres",
            gsslib="gssapi",
            timeout=timeout,
            command_timeout=command_timeout,
            # From PostgreSQL 14 on the server says so by itself: no further round trip.
            target_session_attrs=SessionAttribute.primary if primary else SessionAttribute.any,
            server_settings=dict(settings),
            loop=cast("asyncio.AbstractEventLoop", watch),
            connection_class=_Connection,
        )
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message.rstrip(".")
        raise Refused(f"The server's certificate is not accepted: {reason}.") from error
    except ssl.SSLError as error:
        raise Refused("The server and we do not agree on TLS.") from error
    except TimeoutError as error:
        raise watch.late(timeout) from error
    except (OSError, MemoryError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if watch.violation is not None:
            raise Refused(str(watch.violation)) from watch.violation
        if (ours := local_failure(error)) is not None:
            raise ours from error
        # asyncpg raises no subclass where the server did not answer our wish for TLS with yes.
        if tls and type(error) is ConnectionError:
            raise Refused("The server does not offer TLS.") from error
        raise
    except asyncpg.TargetServerAttributeNotMatched as error:
        raise Refused("The server is a standby and takes no writes.") from error
    except _UNREADABLE as error:
        raise Refused("The server's answer cannot be read.") from error


def _is_verified(tls: Tls) -> bool:
    return (
        tls is not False and tls.check_hostname and tls.verify_mode is ssl.VerifyMode.CERT_REQUIRED
    )


def _is_here(peer: object) -> bool:
    """Whether the other end of a connection, a Unix socket's or an address, is on this machine."""
    if isinstance(peer, tuple):
        return ipaddress.ip_address(peer[0]).is_loopback
    return isinstance(peer, str | bytes)


class _Guard(asyncio.Protocol):
    """Stands between the transport and asyncpg until the login is done."""

    def __init__(self, inner: Protocol, watch: _Watch) -> None:
        self._inner = inner
        self._watch = watch
        self._handshake: Handshake | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stand_before(cast("asyncio.Transport", transport))
        self._inner.connection_made(transport)

    def stand_before(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        is_here = _is_here(transport.get_extra_info("peername"))
        self._handshake = Handshake(is_verified=self._watch.is_verified, is_here=is_here)
        self._watch.handshake = self._handshake
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._handshake is None or self._transport.is_closing():
            return
        try:
            passed = self._handshake.feed(data)
        except Violation as violation:
            self._watch.violation = violation
            self._transport.abort()
            return
        if self._handshake.is_done:
            self._transport.set_protocol(self._inner)
        if passed:
            self._inner.data_received(passed)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class _Watch:
    """The event loop as asyncpg sees it while it connects: whatever it opens is guarded."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, is_verified: bool) -> None:
        self.loop = loop
        self.is_verified = is_verified
        self.violation: Violation | None = None
        self.handshake: Handshake | None = None

    def late(self, timeout: float) -> NoAnswer | Unfinished:
        """What it means that the login was not done after *timeout* seconds."""
        if self.handshake is None:
            return NoAnswer(f"No connection to the server within {timeout:.3g} s.")
        if not self.handshake.is_answered:
            return NoAnswer(f"The server did not answer the login within {timeout:.3g} s.")
        return Unfinished(
            f"Postgres answered and did not finish the login within {timeout:.3g} s;"
            " the database may be locked, as while it is copied."
        )

    def __getattr__(self, name: str) -> object:
        return getattr(self.loop, name)

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], *address: object
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        return await self._guarded(self.loop.create_connection, factory, *address)

    async def create_unix_connection(
        self, factory: Callable[[], asyncio.Protocol], path: str
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        return await self._guarded(self.loop.create_unix_connection, factory, path)

    async def start_tls(self, *args: Any, server_hostname: str) -> asyncio.Transport | None:
        transport = await self.loop.start_tls(*args, server_hostname=server_hostname)
        if transport is not None:
            # asyncpg puts its protocol there at once, and nothing is read before the next turn.
            self.loop.call_soon(self._guard, transport)
        return transport

    async def _guarded(
        self, create: Callable[..., Any], factory: Callable[[], asyncio.Protocol], *address: object
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        made: list[asyncio.Protocol] = []

        def make() -> asyncio.Protocol:
            made.append(factory())
            inner = made[0]
            return _Guard(inner, self) if isinstance(inner, Protocol) else inner

        transport, _ = await create(make, *address)
        return transport, made[0]

    def _guard(self, transport: asyncio.Transport) -> None:
        protocol = transport.get_protocol()
        if isinstance(protocol, Protocol) and not transport.is_closing():
            _Guard(protocol, self).stand_before(transport)


class _Connection(asyncpg.Connection):
    """A connection that, once it is open, lives in the real event loop.

    Attributes:
        retyped: the types whose codecs somebody asked to change: name and schema, by oid.
    """

    __slots__ = ("retyped",)

    def __init__(
        self, protocol: Protocol, transport: asyncio.Transport, loop: _Watch, *rest: Any
    ) -> None:
        super().__init__(protocol, transport, loop.loop, *rest)
        self.retyped: dict[int, tuple[str, str]] = {}

    async def _introspect_type(self, typename: str, schema: str) -> asyncpg.Record:
        # Every way to change a codec begins with this, and nothing else does.
        found: asyncpg.Record = await super()._introspect_type(typename, schema)  # type: ignore[misc]
        self.retyped[found["oid"]] = (typename, schema)
        return found
