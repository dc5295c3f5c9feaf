"""Connections to any Postgres server: the only place where asyncpg connects.

It knows addresses and logins as plain values; it must not know whose they are, or why.
"""

from app.wire.connect import OnAbandonedLogin, connect
from app.wire.errors import (
    ConnectError,
    ConnectTimeout,
    LocalFailure,
    LoginTimeout,
    ServerRejected,
    TlsRejected,
)
from app.wire.happy_eyeballs import abandon
from app.wire.login import LIFT_TRANSACTION_TIMEOUT, NO_TIMEOUTS, Login, Tls
from app.wire.resolver import SYSTEM_RESOLVER, Address, Resolver

__all__ = [
    "LIFT_TRANSACTION_TIMEOUT",
    "NO_TIMEOUTS",
    "SYSTEM_RESOLVER",
    "Address",
    "ConnectError",
    "ConnectTimeout",
    "LocalFailure",
    "Login",
    "LoginTimeout",
    "OnAbandonedLogin",
    "Resolver",
    "ServerRejected",
    "Tls",
    "TlsRejected",
    "abandon",
    "connect",
]
