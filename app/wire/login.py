"""A login: where a Postgres server is, and who logs in."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from app.wire.resolver import SYSTEM_RESOLVER, Resolver

Tls = ssl.SSLContext | Literal[False]

NO_TIMEOUTS = dict.fromkeys(
    (
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "lock_timeout",
        "statement_timeout",
    ),
    "0",
)
"""Settings that lift what is set for a role or a database: that is meant for applications."""

LIFT_TRANSACTION_TIMEOUT = (
    "select set_config('transaction_timeout', '0', false)"
    " where current_setting('transaction_timeout', true) <> '0'"
)
"""Does the same for a timeout that a login cannot name: before 17, Postgres does not know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Everything that a connection needs.

    Attributes:
        host: name or address, or the directory of a Unix socket.
        password: used in SCRAM; sent only to a server that TLS has verified.
        tls: how to use TLS, or False for no TLS; there is no fallback to plain text.
        settings: server settings fixed for the connection's life.
        primary: whether to refuse a standby, which accepts no writes.
        direct: whether it is for the service's own work, which needs Postgres itself: a pooler is
            refused, which takes a round trip, and in the same one transaction_timeout is lifted.
        resolver: finds the addresses of the host; the first successful login wins.
        may_go_on: called before each step of the login; the login ends if it returns False.
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
        """The same login to another database."""
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
