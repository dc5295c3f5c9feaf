"""The border to asyncpg: how a connection is opened, and what its errors mean to us.

No exception of the driver leaves `app.pools` untranslated, except to the borrower whose own
statement caused it. Never takes a DSN: every parameter is given, so that nothing falls back
to the environment, a password file or a service file of this machine.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from app.domain.errors import (
    ProvisioningFailed,
    ServerFull,
    ServerUnavailable,
    TenantLoginFailed,
)

# What a broken, refused or vanished connection looks like through asyncpg.
CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
)
_LOGIN_ERRORS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)


TlsMode = Literal["prefer", "require"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Everything one connection needs.

    Attributes:
        tls: an SSL context, asyncpg's name of a mode, or False for none.
        settings: server settings fixed for the connection's life.
        primary: whether a standby, which takes no writes, is refused.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    tls: ssl.SSLContext | TlsMode | Literal[False] = False
    settings: Mapping[str, str] = field(default_factory=dict)
    primary: bool = True

    def into(self, database: str) -> Login:
        """The same login into another database."""
        return replace(self, database=database)


async def connect(login: Login, *, timeout: float) -> asyncpg.Connection:
    """Open a connection within *timeout* seconds.

    Raises:
        ServerUnavailable: the server cannot be reached or is starting or stopping.
        ServerFull: it accepts no further connection, for everybody or for this role.
        TenantLoginFailed: it refuses the role, the password or the database.
    """
    with translated():
        return await asyncpg.connect(
            host=login.host,
            port=login.port,
            user=login.user,
            password=login.password,
            database=login.database,
            ssl=login.tls,
            passfile=os.devnull,
            timeout=timeout,
            # From PostgreSQL 14 on the server says so by itself: no further round trip.
            target_session_attrs=(
                SessionAttribute.primary if login.primary else SessionAttribute.any
            ),
            server_settings=dict(login.settings),
        )


@contextmanager
def translated() -> Iterator[None]:
    """Turn what asyncpg raises when connecting into this project's errors."""
    try:
        yield
    except asyncpg.TooManyConnectionsError as error:
        raise ServerFull(f"Postgres accepts no further connection: {error}") from error
    except _LOGIN_ERRORS as error:
        raise TenantLoginFailed(f"Postgres refused the login: {error}") from error
    except CONNECTION_ERRORS as error:
        raise ServerUnavailable(
            f"The server cannot be reached ({type(error).__name__})."
        ) from error
    except asyncpg.PostgresError as error:
        # Whatever else it is, it is this login's: a full disk, a setting of its role.
        raise TenantLoginFailed(f"Postgres refused the connection ({error.sqlstate}).") from error


@contextmanager
def translated_administration() -> Iterator[None]:
    """Turn what asyncpg raises on an admin connection into this project's errors."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise ServerUnavailable(
            f"The server cannot be reached ({type(error).__name__})."
        ) from error
    except asyncpg.PostgresError as error:
        raise ProvisioningFailed(f"Postgres refused: {error}") from error
