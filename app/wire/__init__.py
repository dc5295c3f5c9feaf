"""The way to any Postgres server: the one place where asyncpg is asked to connect.

Knows addresses and logins as plain values; must not know whose they are, nor why.
"""

from app.wire.connect import SYSTEM_RESOLVER, OnAbandonedLogin, Tls, connect, connect_directly
from app.wire.errors import ConnectError, ConnectTimeout, LocalFailure, LoginTimeout, ServerRejected
from app.wire.resolver import Address, Resolver

__all__ = [
    "SYSTEM_RESOLVER",
    "Address",
    "ConnectError",
    "ConnectTimeout",
    "LocalFailure",
    "LoginTimeout",
    "OnAbandonedLogin",
    "Resolver",
    "ServerRejected",
    "Tls",
    "connect",
    "connect_directly",
]
