"""Opens a connection: all parameters are explicit, and the server is checked during the login.

There is no DSN, and nothing is left for asyncpg to look up: variables, password files, service
files and certificates of this machine have no effect. It does not judge what its errors mean for
callers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.protocol import Protocol

from app.wire.connection import WireConnection
from app.wire.errors import (
    ConnectTimeout,
    LocalFailure,
    LoginTimeout,
    ServerIsStandby,
    ServerRejected,
    TlsRejected,
    local_failure,
)
from app.wire.handshake import Handshake, ProtocolViolation
from app.wire.happy_eyeballs import abandon, first_success
from app.wire.joining_transport import JoiningTransport
from app.wire.login import LIFT_TRANSACTION_TIMEOUT, Login
from app.wire.relay import Interceptor
from app.wire.resolver import Address

OnAbandonedLogin = Callable[[asyncio.Task[asyncpg.Connection]], None]

# A pooler gives each transaction, or each client, another session. There, settings of a login are
# silently lost, and so are locks and other state that must not pass to the next borrower or tenant.
# A pooler is detected by its behaviour, not by its name.
_MARK = "poolkeeper.session"
_QUERY = f"""
select pg_backend_pid() as pid, current_setting('{_MARK}', true) as mark,
       ({LIFT_TRANSACTION_TIMEOUT}) as lifted
"""
# The prepared statement is unknown there, or another one has its name.
_POOLER_ERRORS = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
_POOLER = (
    "This is not Postgres itself but a pooler such as PgBouncer, where sessions are shared. "
    "Give the address of the Postgres server behind it."
)

# asyncpg raises these when it reads what no server should send.
_UNREADABLE = (BufferError, LookupError, UnicodeDecodeError)


async def connect(
    login: Login,
    *,
    timeout: float,
    command_timeout: float | None = None,
    on_abandoned: OnAbandonedLogin | None = None,
) -> asyncpg.Connection:
    """Log in within *timeout* seconds.

    Args:
        login: server and role.
        timeout: for the whole login, in seconds; the same time again for the check whether it is
            `direct`.
        command_timeout: default for every statement, in seconds.
        on_abandoned: gets each login that timed out while the server may still work on it, and must
            end it. Without it, the connection is dropped.

    Raises:
        ServerRejected: the server is not the expected one, or misbehaves.
        ConnectTimeout, LoginTimeout: it did not answer, or did not finish the login, in time.
        LocalFailure: this machine cannot connect.
        OSError, asyncpg.InterfaceError, asyncpg.PostgresError: from asyncpg.
    """
    mark = secrets.token_hex(8)
    if login.direct:
        login = replace(login, settings={**login.settings, _MARK: mark})
    try:
        connection = await _connect(
            login, timeout=timeout, command_timeout=command_timeout, on_abandoned=on_abandoned
        )
    except asyncpg.ProtocolViolationError as error:
        if not login.direct:
            raise
        raise ServerRejected(
            "The server refuses settings that each connection needs. If it is a pooler such as "
            "PgBouncer, give the address of the Postgres server behind it."
        ) from error
    if login.direct:
        await _refuse_pooler(connection, mark, timeout)
    return connection


async def _connect(
    login: Login,
    *,
    timeout: float,
    command_timeout: float | None,
    on_abandoned: OnAbandonedLogin | None,
) -> asyncpg.Connection:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    addresses: list[Address | None] = [None]
    if not login.host.startswith("/"):
        addresses = list(await _addresses(login, timeout))
    arguments = _driver_arguments(login, command_timeout)
    is_verified = login.is_verified
    attempts = [
        _LoginAttempt(
            _GuardedLoop(
                loop,
                each,
                is_verified=is_verified and each is not None,
                may_go_on=login.may_go_on,
            ),
            arguments,
        )
        for each in addresses
    ]

    def give_up(task: asyncio.Task[asyncpg.Connection], attempt: _LoginAttempt) -> None:
        if on_abandoned is not None and attempt.loop.handshake is not None:
            on_abandoned(task)
        else:
            abandon(task)

    connection, winner = await first_success(
        attempts,
        timeout=deadline - loop.time(),
        timeout_error=lambda running: _timeout_error(running, timeout),
        on_abandoned=give_up,
    )
    if winner.loop.address is not None:
        login.resolver.prefer(login.host, login.port, winner.loop.address)
    return connection


def _driver_arguments(login: Login, command_timeout: float | None) -> dict[str, Any]:
    """The arguments of `asyncpg.connect` for this login."""
    return {
        "host": login.host,
        "port": login.port,
        "user": login.user,
        "password": login.password,
        "database": login.database,
        "ssl": login.tls,
        "direct_tls": False,
        "passfile": os.devnull,
        "servicefile": os.devnull,
        "krbsrvname": "postgres",
        "gsslib": "gssapi",
        "timeout": None,
        "command_timeout": command_timeout,
        # From PostgreSQL 14 on, the server reports this by itself, without another round trip.
        "target_session_attrs": SessionAttribute.primary if login.primary else SessionAttribute.any,
        "server_settings": dict(login.settings),
    }


async def _refuse_pooler(connection: asyncpg.Connection, mark: str, timeout: float) -> None:
    """Check that the session is our own, and has the *mark* of its login.

    Raises:
        ServerRejected: the session does not belong to this connection alone.
    """
    is_direct = False
    try:
        async with asyncio.timeout(timeout):
            row = await connection.fetchrow(_QUERY)
        ours = (connection.get_server_pid(), mark)
        is_direct = row is not None and (row["pid"], row["mark"]) == ours
    except _POOLER_ERRORS as error:
        raise ServerRejected(_POOLER) from error
    finally:
        if not is_direct:
            connection.terminate()
    if not is_direct:
        raise ServerRejected(_POOLER)


async def _addresses(login: Login, timeout: float) -> list[Address]:
    try:
        async with asyncio.timeout(timeout):
            return await login.resolver.addresses(login.host, login.port)
    except TimeoutError as error:
        raise LoginTimeout(f"The host name was not resolved within {timeout:.3g} s.") from error
    except (OSError, MemoryError) as error:
        # Of a lookup, the C library may report any error number.
        unresolved = LocalFailure("The host name cannot be resolved.")
        raise local_failure(error) or unresolved from error


def _timeout_error(
    running: Iterable[_LoginAttempt], timeout: float
) -> ConnectTimeout | LoginTimeout:
    """The error for *running* logins that are not done after *timeout* seconds."""
    attempts = list(running)
    if any(each.has_answered for each in attempts):
        return LoginTimeout(
            f"Postgres answered and did not finish the login within {timeout:.3g} s;"
            " the database may be locked, as while it is copied."
        )
    if any(each.loop.handshake is not None for each in attempts):
        return ConnectTimeout(f"The server did not answer the login within {timeout:.3g} s.")
    return ConnectTimeout(f"No connection to the server within {timeout:.3g} s.")


class _LoginAttempt:
    """A login at one address of the server."""

    def __init__(self, loop: _GuardedLoop, arguments: Mapping[str, Any]) -> None:
        self.loop = loop
        self._arguments = arguments

    @property
    def has_answered(self) -> bool:
        handshake = self.loop.handshake
        return self.loop.speaks_tls or (handshake is not None and handshake.has_answered)

    async def run(self) -> asyncpg.Connection:
        try:
            return await self._connect()
        except BaseException:
            self.loop.abort_tls()
            raise

    async def _connect(self) -> asyncpg.Connection:
        loop = self.loop
        try:
            return await asyncpg.connect(  # noqa: TID251 - only here
                **self._arguments,
                loop=cast("asyncio.AbstractEventLoop", loop),
                connection_class=WireConnection,
            )
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message.rstrip(".")
            raise TlsRejected(f"The server's certificate is not accepted: {reason}.") from error
        except ssl.SSLError as error:
            raise TlsRejected("The TLS handshake with the server failed.") from error
        except (OSError, MemoryError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if loop.violation is not None:
                raise ServerRejected(str(loop.violation)) from loop.violation
            if (ours := local_failure(error)) is not None:
                raise ours from error
            # asyncpg raises no subclass if the server refuses our request for TLS.
            if self._arguments["ssl"] and type(error) is ConnectionError:
                raise TlsRejected("The server does not offer TLS.") from error
            raise
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise ServerIsStandby("The server is a standby and takes no writes.") from error
        except _UNREADABLE as error:
            raise ServerRejected("The server's answer cannot be read.") from error


def _is_local(peer: object) -> bool:
    """Whether the other end of a connection, a Unix socket or an address, is on this machine."""
    if isinstance(peer, tuple):
        return _is_loopback(peer[0])
    return isinstance(peer, str | bytes)


@lru_cache
def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


class _HandshakeGuard(Interceptor):
    """Stands between the transport and asyncpg until the login is done."""

    def __init__(self, driver: Protocol, loop: _GuardedLoop) -> None:
        super().__init__(driver)
        self._loop = loop
        self._handshake: Handshake | None = None
        self._transport: asyncio.Transport | None = None
        self.joining_transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connected = cast("asyncio.Transport", transport)
        self.guard(connected)
        if self._loop.may_go_on():
            self.joining_transport = JoiningTransport.over(connected)
            # asyncpg sends the first message of the login, which may be all that a server asks for.
            self._driver.connection_made(self.joining_transport)
        else:
            connected.abort()

    def guard(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._handshake = self._loop.begin_handshake(transport)
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._handshake is None or self._transport.is_closing():
            return
        if not self._loop.may_go_on():
            self._transport.abort()
            return
        try:
            passed = self._handshake.feed(data)
        except ProtocolViolation as violation:
            self._loop.reject(violation)
            self._transport.abort()
            return
        if self._handshake.is_done:
            self._transport.set_protocol(self._driver)
        if passed:
            self._driver.data_received(passed)


def _looked_at(answer: asyncio.Future[bool]) -> None:
    """Mark a failure as retrieved, so that asyncio does not report it."""
    if not answer.cancelled():
        answer.exception()


class _GuardedLoop:
    """The event loop as asyncpg sees it while connecting: it knows one address, and guards it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address | None,
        *,
        is_verified: bool,
        may_go_on: Callable[[], bool],
    ) -> None:
        self.loop = loop
        self.may_go_on = may_go_on
        self.address = address
        self.speaks_tls = False
        self.violation: ProtocolViolation | None = None
        self.handshake: Handshake | None = None
        self._is_verified = is_verified
        self._tls_transport: asyncio.Transport | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.loop, name)

    def begin_handshake(self, transport: asyncio.Transport) -> Handshake:
        is_local = _is_local(transport.get_extra_info("peername"))
        self.handshake = Handshake(is_verified=self._is_verified, is_local=is_local)
        return self.handshake

    def reject(self, violation: ProtocolViolation) -> None:
        self.violation = violation

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
        self._tls_transport = transport
        # A later handshake is one to cancel a statement.
        if self.handshake is None and not self.may_go_on():
            raise ConnectionAbortedError
        if transport is not None:
            # asyncpg sets its protocol at once, and bytes that came with the handshake would reach
            # it.
            transport.pause_reading()
            self.loop.call_soon(self._guard, transport)
            return JoiningTransport.over(transport)
        return None

    def abort_tls(self) -> None:
        """End a failed login at once: asyncpg would close it, and over TLS wait for the server."""
        if self._tls_transport is not None:
            self._tls_transport.abort()

    async def _guarded(
        self, create: Callable[..., Any], factory: Callable[[], asyncio.Protocol], *address: object
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        made: list[asyncio.Protocol] = []

        def make() -> asyncio.Protocol:
            driver = factory()
            made.append(driver)
            if isinstance(driver, Protocol):
                return _HandshakeGuard(driver, self)
            # asyncpg asks for TLS first; an abandoned login never reads the answer.
            answer: asyncio.Future[bool] | None = getattr(driver, "on_data", None)
            if answer is not None:
                answer.add_done_callback(_looked_at)
            return driver

        transport, protocol = await create(make, *address)
        if isinstance(protocol, _HandshakeGuard):
            transport = protocol.joining_transport or transport
        return transport, made[0]

    def _guard(self, transport: asyncio.Transport) -> None:
        if transport.is_closing():
            return
        protocol = transport.get_protocol()
        if isinstance(protocol, Protocol):
            _HandshakeGuard(protocol, self).guard(transport)
        # A cancel request waits only for the end of its connection, which asyncio reports only to
        # readers.
        transport.resume_reading()
