"""The way to any Postgres server: the one place where asyncpg is asked to connect.

Knows addresses and logins as plain values; must not know whose they are, nor why.
"""

from app.wire.addresses import Address, Resolver
from app.wire.connect import SYSTEM, Leave, Tls, connect
from app.wire.direct import connect_directly
from app.wire.errors import ConnectError, LocalFailure, NoAnswer, Refused, Unfinished

__all__ = [
    "SYSTEM",
    "Address",
    "ConnectError",
    "Leave",
    "LocalFailure",
    "NoAnswer",
    "Refused",
    "Resolver",
    "Tls",
    "Unfinished",
    "connect",
    "connect_directly",
]
