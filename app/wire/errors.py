"""Why no connection was opened; each class says whose trouble it is.

Each text is ours, says why and quotes nothing of the server.
"""

from __future__ import annotations

import errno
import os
import socket

# What this machine lacks or forbids, whatever the server is like.
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
    """We do not talk to this server as it is."""


class ServerIsStandby(ServerRejected):
    """It takes no writes."""


class ConnectTimeout(ConnectError, TimeoutError):
    """The server did not answer in time."""


class LoginTimeout(ConnectError, TimeoutError):
    """Something answered and did not finish in time: the login, or a lookup before it."""


class LocalFailure(ConnectError, ConnectionError):
    """This machine cannot connect now; that says nothing about the server."""


def local_failure(error: Exception) -> LocalFailure | None:
    """What *error*, raised while connecting, means if this machine is the cause."""
    if isinstance(error, socket.gaierror):
        is_system = error.errno == socket.EAI_SYSTEM
        reason = "system error" if is_system else str(error.strerror or error.errno)
        return LocalFailure(f"The host name cannot be resolved ({reason}).")
    if isinstance(error, MemoryError):
        return LocalFailure("This machine is out of memory.")
    if isinstance(error, OSError) and error.errno in _LOCAL:
        return LocalFailure(f"This machine cannot connect now ({os.strerror(error.errno)}).")
    return None
