"""What a connection needs: where a Postgres is, and who logs in."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from app.wire.resolver import SYSTEM_RESOLVER, Resolver

Tls = ssl.SSLContext | Literal[False]


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Everything one connection needs.

    Attributes:
        host: name or address, or the directory of a Unix socket.
        password: proved by SCRAM; sent only to a server that TLS has verified.
        tls: how TLS is spoken, or False for not at all; there is no fallback to plain text.
        settings: server settings fixed for the connection's life.
        primary: whether a standby, which takes no writes, is refused.
        direct: whether a pooler is refused, which takes a round trip.
        resolver: finds the addresses of the host; the first at which a login succeeds is taken.
        may_go_on: asked before each step of the login, which breaks off when it may not.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    tls: Tls = False
    settings: Mapping[str, str] = field(default_factory=dict)
    primary: bool = True
    direct: bool = False
    resolver: Resolver = field(default=SYSTEM_RESOLVER, repr=False)
    may_go_on: Callable[[], bool] = field(default=lambda: True, repr=False)

    def for_database(self, database: str) -> Self:
        """The same login into another database."""
        return replace(self, database=database)

    @property
    def is_verified(self) -> bool:
        """Whether TLS proves that the server is the one at that host."""
        tls = self.tls
        return (
            tls is not False
            and tls.check_hostname
            and tls.verify_mode is ssl.VerifyMode.CERT_REQUIRED
        )
