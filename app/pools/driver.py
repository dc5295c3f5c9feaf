"""The border to asyncpg: translates its errors into ours.

No exception of the driver leaves `app.pools` untranslated, except to the borrower whose own
statement caused it. A server's message in a refused login is not quoted: nothing has proved yet
that the server is ours.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import asyncpg

from app import wire
from app.domain.errors import (
    ConnectFailed,
    ProvisioningFailed,
    ServerFull,
    ServerReadOnly,
    ServerUnavailable,
    StatementConflict,
    StatementFailed,
    TenantLoginFailed,
)

# How a broken, refused or vanished connection looks through asyncpg.
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
# Their SQLSTATEs: errors of the login, and of the database.
_REASONS = {
    "28P01": "the password is wrong, or there is no such role",
    "28000": "the role may not log in, or not from here or not in this way (see pg_hba.conf)",
    "3D000": "the database does not exist",
    "42501": "the role may not connect to the database",
    "55000": "the database takes no connections",
}
# The members of class 53 that say which resource is used up; all of class 53 means: try again
# later.
_LACKING = {
    "53100": "disk space",
    "53200": "memory or lock table space",
    "53400": "what its configuration allows",
}

_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "its name is not known"),
    (TimeoutError, "it did not answer in time"),
    (ConnectionRefusedError, "it refused the connection"),
    (FileNotFoundError, "there is no such Unix socket"),
    (asyncpg.CannotConnectNowError, "it is starting or stopping"),
    (asyncpg.AdminShutdownError, "it is stopping"),
)
# Serialization failure, deadlock, lock not available, lock table full: another transaction was in
# the way.
_CONFLICTS = frozenset({"40001", "40P01", "55P03", "53200"})
# The fields of an ErrorResponse by their letters, with asyncpg's names.
_FIELDS = {
    "V": "severity_en",
    "D": "detail",
    "p": "internal_position",
    "q": "internal_query",
    "W": "context",
    "s": "schema_name",
    "t": "table_name",
    "c": "column_name",
    "d": "data_type_name",
    "n": "constraint_name",
    "F": "server_source_filename",
    "L": "server_source_line",
    "R": "server_source_function",
}
# The longest part of Postgres' message about a statement: it may quote a long key or value.
_LONGEST_MESSAGE = 4000


_IN_USE = (
    "A transaction that is still open, perhaps the tenant's own, holds what is to be changed. "
    "Try again once it has ended."
)
_DENIED = "`poolkeeper doctor` prints the SQL that grants what is missing."
_UNREADABLE = "Postgres sent a name or a message that is not in UTF-8."


async def connect(
    login: wire.Login, *, timeout: float, leave: wire.OnAbandonedLogin | None = None
) -> asyncpg.Connection:
    """Open a connection within *timeout* seconds.

    *leave* gets a login that timed out while the server may still work on it; see `wire.connect`.

    Raises:
        ServerUnavailable: the server cannot be reached or is starting or stopping.
        ServerFull: it accepts no further connection, from anybody or from this role.
        ConnectFailed: this machine cannot connect, or the login does not end.
        TenantLoginFailed: it refuses the role, the password or the database.
    """
    with translate_connect_errors():
        return await wire.connect(login, timeout=timeout, on_abandoned=leave)


async def close(connection: asyncpg.Connection) -> None:
    """Close *connection*; terminate it if it does not end soon."""
    try:
        await connection.close(timeout=1)
    except CONNECTION_ERRORS:
        connection.terminate()


@contextmanager
def translate_connect_errors() -> Iterator[None]:
    """Translate asyncpg's errors when connecting."""
    try:
        yield
    except asyncpg.TooManyConnectionsError as error:
        raise ServerFull("Postgres accepts no further connection.") from error
    except asyncpg.InsufficientResourcesError as error:
        lacking = _LACKING.get(error.sqlstate or "", "a resource")
        raise ServerFull(
            f"Postgres has too little of {lacking} for another connection ({error.sqlstate})."
        ) from error
    except (wire.LocalFailure, wire.LoginTimeout) as error:
        raise ConnectFailed(str(error)) from error
    except _LOGIN_ERRORS as error:
        reason = _REASONS.get(error.sqlstate or "", "it did not say why")
        raise TenantLoginFailed(f"Postgres refused the login: {reason}.") from error
    except (wire.ServerRejected, wire.ConnectTimeout) as error:
        raise ServerUnavailable(str(error)) from error
    except CONNECTION_ERRORS as error:
        raise ServerUnavailable(f"The server cannot be reached: {_why(error)}.") from error
    except asyncpg.PostgresError as error:
        # Any other error concerns this login only: a full disk, or a setting of its role.
        raise TenantLoginFailed(f"Postgres refused the connection ({error.sqlstate}).") from error


@contextmanager
def translate_admin_errors() -> Iterator[None]:
    """Translate asyncpg's errors on an admin connection."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise ServerUnavailable(f"The server cannot be reached: {_why(error)}.") from error
    except asyncpg.ReadOnlySQLTransactionError as error:
        raise ServerReadOnly from error
    except asyncpg.LockNotAvailableError as error:
        raise ProvisioningFailed(_IN_USE) from error
    except asyncpg.PostgresError as error:
        said = f"Postgres refused: {server_message(error)}"
        is_denied = isinstance(error, asyncpg.InsufficientPrivilegeError)
        raise ProvisioningFailed(f"{said}. {_DENIED}" if is_denied else said) from error
    except UnicodeDecodeError as error:
        raise ProvisioningFailed(_UNREADABLE) from error


def failure_reason(error: asyncpg.PostgresError | UnicodeDecodeError) -> str:
    """Say why an administrative query failed."""
    return server_message(error) if isinstance(error, asyncpg.PostgresError) else _UNREADABLE


def _why(error: BaseException) -> str:
    return next(
        (words for kind, words in _WORDS if isinstance(error, kind)), "the connection broke"
    )


def server_message(error: asyncpg.PostgresError) -> str:
    """Postgres' primary message.

    Str(error) would add the details, with their values, and the hint.
    """
    return getattr(error, "message", None) or str(error)


def statement_failure(error: asyncpg.PostgresError) -> StatementFailed:
    """Translate Postgres' error about the borrower's own statement."""
    position = getattr(error, "position", None)
    return failure_of(
        error.sqlstate,
        server_message(error),
        hint=getattr(error, "hint", None),
        position=int(position) if position else None,
        fields={
            letter: str(value)
            for letter, name in _FIELDS.items()
            if (value := getattr(error, name, None)) is not None
        },
    )


def failure_of(
    sqlstate: str | None,
    message: str,
    *,
    hint: str | None = None,
    position: int | None = None,
    fields: Mapping[str, str] | None = None,
) -> StatementFailed:
    """Build a statement's failure; its class says whether a retry may succeed."""
    kind = StatementConflict if sqlstate in _CONFLICTS else StatementFailed
    return kind(
        _shortened(message),
        sqlstate=sqlstate,
        hint=hint and _shortened(hint),
        position=position,
        fields=fields,
    )


def _shortened(text: str) -> str:
    """Shorten *text* to what people read; a tenant's code may raise megabytes."""
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "…"
