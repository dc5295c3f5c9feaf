"""Open a connection: every parameter is given, and the server is watched until we are logged in.

Without a DSN, and with nothing left for asyncpg to look up: no variable, password file, service
file or certificate of this machine has a say. Must not judge what its errors mean to whom.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.protocol import Protocol

from app.wire.connection import WireConnection
from app.wire.errors import (
    ConnectTimeout,
    LoginTimeout,
    ServerIsStandby,
    ServerRejected,
    local_failure,
)
from app.wire.handshake import Handshake, ProtocolViolation
from app.wire.happy_eyeballs import abandon, first_success
from app.wire.resolver import Address, Resolver

Tls = ssl.SSLContext | Literal[False]
OnAbandonedLogin = Callable[[asyncio.Task[asyncpg.Connection]], None]

# Of the process: a name has one look-up at a time.
SYSTEM_RESOLVER = Resolver()

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
    resolver: Resolver = SYSTEM_RESOLVER,
    on_abandoned: OnAbandonedLogin | None = None,
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
        resolver: finds the addresses of *host*; the first that a login succeeds at is taken.
        on_abandoned: gets each login that is given up while the server may still work on
            it; the receiver ends it. Without it, it is hung up.

    Raises:
        Refused: the server is not who it should be, or misbehaves.
        NoAnswer, Unfinished: it did not answer, or not finish the login, in time.
        LocalFailure: this machine cannot connect.
        OSError, asyncpg.InterfaceError, asyncpg.PostgresError: as asyncpg has them.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    ways: list[Address | None] = [None]
    if not host.startswith("/"):
        ways = list(await _addresses(resolver, host, port, timeout))
    arguments = {
        "host": host,
        "port": port,
        "user": user,
        "password": password,
        "database": database,
        "ssl": tls,
        "direct_tls": False,
        "passfile": os.devnull,
        "servicefile": os.devnull,
        "krbsrvname": "postgres",
        "gsslib": "gssapi",
        "timeout": None,
        "command_timeout": command_timeout,
        # From PostgreSQL 14 on the server says so by itself: no further round trip.
        "target_session_attrs": SessionAttribute.primary if primary else SessionAttribute.any,
        "server_settings": dict(settings),
    }
    logins = [
        _Login(_GuardedLoop(loop, way, is_verified=bool(way) and _is_verified(tls)), arguments)
        for way in ways
    ]

    def give_up(task: asyncio.Task[asyncpg.Connection], login: _Login) -> None:
        if on_abandoned is not None and login.is_connected:
            on_abandoned(task)
        else:
            abandon(task)

    connection, winner = await first_success(
        logins,
        timeout=deadline - loop.time(),
        timeout_error=lambda running: _late(running, timeout),
        on_abandoned=give_up,
    )
    if winner.address is not None:
        resolver.prefer(host, port, winner.address)
    return connection


async def _addresses(resolver: Resolver, host: str, port: int, timeout: float) -> list[Address]:
    try:
        async with asyncio.timeout(timeout):
            return await resolver.addresses(host, port)
    except TimeoutError as error:
        raise LoginTimeout(f"The host name was not resolved within {timeout:.3g} s.") from error
    except (OSError, MemoryError) as error:
        raise local_failure(error) or error from error


def _late(logins: Iterable[_Login], timeout: float) -> ConnectTimeout | LoginTimeout:
    """What it means that *logins* are not done after *timeout* seconds."""
    logins = list(logins)
    if any(login.has_answered for login in logins):
        return LoginTimeout(
            f"Postgres answered and did not finish the login within {timeout:.3g} s;"
            " the database may be locked, as while it is copied."
        )
    if any(login.is_connected for login in logins):
        return ConnectTimeout(f"The server did not answer the login within {timeout:.3g} s.")
    return ConnectTimeout(f"No connection to the server within {timeout:.3g} s.")


class _Login:
    """A login at one address of the server."""

    def __init__(self, watch: _GuardedLoop, arguments: Mapping[str, Any]) -> None:
        self._watch = watch
        self._arguments = arguments

    @property
    def address(self) -> Address | None:
        return self._watch.address

    @property
    def is_connected(self) -> bool:
        return self._watch.handshake is not None

    @property
    def has_answered(self) -> bool:
        watch = self._watch
        return watch.speaks_tls or (watch.handshake is not None and watch.handshake.has_answered)

    async def run(self) -> asyncpg.Connection:
        watch = self._watch
        try:
            return await asyncpg.connect(  # noqa: TID251 - here, and nowhere else
                **self._arguments,
                loop=cast("asyncio.AbstractEventLoop", watch),
                connection_class=WireConnection,
            )
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message.rstrip(".")
            raise ServerRejected(f"The server's certificate is not accepted: {reason}.") from error
        except ssl.SSLError as error:
            raise ServerRejected("The server and we do not agree on TLS.") from error
        except (OSError, MemoryError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if watch.violation is not None:
                raise ServerRejected(str(watch.violation)) from watch.violation
            if (ours := local_failure(error)) is not None:
                raise ours from error
            # asyncpg raises no subclass where the answer to our wish for TLS was not yes.
            if self._arguments["ssl"] and type(error) is ConnectionError:
                raise ServerRejected("The server does not offer TLS.") from error
            raise
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise ServerIsStandby("The server is a standby and takes no writes.") from error
        except _UNREADABLE as error:
            raise ServerRejected("The server's answer cannot be read.") from error


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

    def __init__(self, inner: Protocol, watch: _GuardedLoop) -> None:
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
        self._handshake = Handshake(is_verified=self._watch.is_verified, is_local=is_here)
        self._watch.handshake = self._handshake
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._handshake is None or self._transport.is_closing():
            return
        try:
            passed = self._handshake.feed(data)
        except ProtocolViolation as violation:
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


class _GuardedLoop:
    """The event loop as asyncpg sees it while it connects: it knows one address, and guards it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: Address | None, *, is_verified: bool
    ) -> None:
        self.loop = loop
        self.address = address
        self.speaks_tls = False
        self.is_verified = is_verified
        self.violation: ProtocolViolation | None = None
        self.handshake: Handshake | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.loop, name)

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        connect = self.loop.create_connection
        if self.address is not None:
            family, host, port = self.address
            connect = partial(connect, family=family, flags=socket.AI_NUMERICHOST)
        return await self._guarded(connect, factory, host, port)

    async def create_unix_connection(
        self, factory: Callable[[], asyncio.Protocol], path: str
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        return await self._guarded(self.loop.create_unix_connection, factory, path)

    async def start_tls(self, *args: Any, server_hostname: str) -> asyncio.Transport | None:
        self.speaks_tls = True
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
