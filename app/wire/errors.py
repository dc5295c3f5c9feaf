"""Errors of connecting; each class says where the cause is.

Each text is our own, says why, and quotes nothing from the server.
"""

import errno
import os
import socket

# Errors that mean that this machine lacks or forbids something, whatever the server is like.
_LOCAL = frozenset(
    {
        errno.EACCES,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EAGAIN,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EPERM,
    }
)


class ConnectError(Exception):
    """No connection was opened; the text says why."""


class ServerRejected(ConnectError, ConnectionError):
    """We do not use this server in its present state."""


class TlsRejected(ServerRejected):
    """The server offers no TLS, or its TLS cannot be trusted."""


class ServerIsStandby(ServerRejected):
    """The server accepts no writes."""


class ConnectTimeout(ConnectError, TimeoutError):
    """The server did not answer in time."""


class LoginTimeout(ConnectError, TimeoutError):
    """The peer answered, but did not finish the login, or a lookup before it, in time."""


class LocalFailure(ConnectError, ConnectionError):
    """This machine cannot connect now; this says nothing about the server."""


def local_failure(error: Exception) -> LocalFailure | None:
    """Translate *error*, raised while connecting, if this machine is the cause; else None."""
    if isinstance(error, socket.gaierror):
        is_system = error.errno == socket.EAI_SYSTEM
        reason = "system error" if is_system else str(error.strerror or error.errno)
        return LocalFailure(f"The host name cannot be resolved ({reason}).")
    if isinstance(error, MemoryError):
        return LocalFailure("This machine is out of memory.")
    if isinstance(error, OSError) and error.errno in _LOCAL:
        return LocalFailure(f"This machine cannot connect now ({os.strerror(error.errno)}).")
    return None
