"""PgBouncer's three files, written so that every text in them is taken literally.

* `pgbouncer.ini`: names of entries are bare (double quotes are a syntax error), values in single
  quotes. A line that it cannot parse leaves all later ones unread.
* `users.txt`: a user that was known before but is missing there can log in with an empty password,
  or with its old one. So it stays, as a *tombstone*: with a verifier that no password fits.
* `hba.conf` provides the isolation: without it every user could log in to every entry, and would be
  connected as that entry's role. Names are quoted: a tenant `all` would let everybody in.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.loopback import is_loopback
from app.domain.nodes.configuration import NodeConfiguration, NodeEntry
from app.domain.nodes.node import CHECK_INTERVAL_MS
from app.node.console import quoted
from app.node.errors import CannotRender

INI, USERS, HBA = "pgbouncer.ini", "users.txt", "hba.conf"

MAX_CLIENTS = 1000
# A limit of PgBouncer 1.18, in bytes; a longer line makes it ignore the rest of the file.
_LONGEST_ENTRY, _LONGEST_USER, _LONGEST_PASSWORD = 63, 127, 2047
_EXTRA_PARAMETERS_SINCE = (1, 20)
_PREPARED_STATEMENTS_SINCE = (1, 21)
_TENANT_CLIENTS_SINCE = (1, 24)
_breaks_line = re.compile(r"[\n\r\0]").search
_is_bare = re.compile(r"[A-Za-z0-9_.-]+").fullmatch
_VERIFYING = ("verify-ca", "verify-full")
# Debian, Red Hat, Alpine.
_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_EVERYWHERE = ("0.0.0.0/0", "::/0")

# PgBouncer takes the addresses of a name in turn, and a standby's session refuses all writes. One
# that ends itself makes it try the next address, until there is a primary.
# Provisioning also sets the interval for the role, where RESET ALL finds it; not so for older
# roles. Postgres may refuse it (`reset_settings`): PgBouncer logs that, and goes on.
_CONNECT_QUERY = (
    "SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())"
    " WHERE pg_catalog.pg_is_in_recovery();"
    f" SET client_connection_check_interval = {CHECK_INTERVAL_MS}"
)

# PgBouncer reads this setting only when it starts.
_TRACKS, _SEARCH_PATH = "track_extra_parameters = IntervalStyle", ",search_path"
_SETTINGS = """\
pool_mode = transaction
auth_type = hba
# Only the agent may use the console: it runs as the same user.
admin_users =
stats_users =
# Its first element is empty: from 1.20 until 1.26.1 an option without a name would otherwise keep
# PgBouncer searching the list for ever (CVE-2026-107349).
ignore_startup_parameters = ,extra_float_digits
# A login that failed is tried again so soon. So is one that was broken off because its entry is
# closed: PgBouncer begins one for the first client anyway.
server_login_retry = 0.1
# A login that was under way when its credential was revoked has so long to end.
client_login_timeout = 15
server_connect_timeout = 5
# The service takes a silent node for one that holds nothing only because unused connections stay.
server_idle_timeout = 600
# If an application or a server falls silent, as when its machine or the network is gone, its
# connections end within half a minute. The system's own limit is two hours.
tcp_keepidle = 15
tcp_keepintvl = 5
tcp_keepcnt = 3
tcp_user_timeout = 30000
log_connections = 0
log_disconnections = 0
log_stats = 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerSettings:
    """The node's own settings: where clients connect, and the files for TLS.

    Attributes:
        certificate, key: if set, clients must use TLS; required beyond loopback.
        server_ca: certificates of the authorities for the Postgres servers' certificates; None: the
            system's.
        max_clients: the most connections of applications, logins under way included.
        max_tenant_clients: the most of them for one tenant, so that it cannot keep others out;
            None: a quarter. PgBouncer before 1.24 has no such limit.
        max_wait: the most seconds that a client waits for a connection: for its tenant's turn, for
            a person to resume the tenant, or for Postgres to come back.
        max_idle_transaction: the most seconds that a client may be idle inside a transaction; None:
            two thirds of `max_wait`, so that clients outlast another's idle transaction while they
            wait.
        refuse_vulnerable: whether to refuse a version with a known vulnerability.
    """

    address: str = "127.0.0.1"
    port: int = 6432
    certificate: Path | None = None
    key: Path | None = None
    server_ca: Path | None = None
    max_clients: int = MAX_CLIENTS
    max_tenant_clients: int | None = None
    max_wait: int = 30
    max_idle_transaction: int | None = None
    refuse_vulnerable: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise CannotRender("TLS needs a certificate and its key.")
        if self.certificate is None and not self.is_loopback:
            raise CannotRender(
                f"Clients would send passwords and data in clear to {self.address}. Give the node"
                " a TLS certificate and key, or let it listen on loopback."
            )

    @property
    def most_idle_seconds(self) -> int:
        """The most seconds that a client may be idle inside a transaction."""
        return self.max_idle_transaction or max(1, self.max_wait * 2 // 3)

    @property
    def tls_files(self) -> tuple[Path, ...]:
        """All files that PgBouncer reads for TLS."""
        files = (self.certificate, self.key, self.authorities)
        return tuple(file for file in files if file is not None)

    @property
    def authorities(self) -> Path | None:
        """The file of the authorities for the Postgres servers' certificates."""
        system = (file for file in map(Path, _AUTHORITIES) if file.exists())
        return self.server_ca or next(system, None)

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedFiles:
    """The texts of PgBouncer's files."""

    ini: str
    users: str = field(repr=False)
    hba: str

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Digests that differ if a running PgBouncer would read different texts."""
        read_at_start = f"\n{_TRACKS}{_SEARCH_PATH}\n"
        texts = (self.ini.replace(read_at_start, f"\n{_TRACKS}\n"), self.users, self.hba)
        return tuple(hashlib.sha256(text.encode()).digest() for text in texts)


def render(
    configuration: NodeConfiguration,
    settings: PoolerSettings,
    *,
    directory: Path,
    version: tuple[int, ...],
    former_users: Iterable[str] = (),
) -> RenderedFiles:
    """Render the files for PgBouncer of *version* and *configuration*.

    Args:
        former_users: users that the running PgBouncer may know. Those that are no longer wanted are
            kept out.

    Raises:
        CannotRender: a text cannot be expressed in the files, or PgBouncer has no such setting.
    """
    entries = sorted(configuration.entries, key=lambda entry: entry.name)
    users = {entry.role: entry.password for entry in entries}
    users |= {login.user: login.verifier for entry in entries for login in entry.logins}
    tombstones = {user: _NO_PASSWORD for user in former_users if user not in users}
    return RenderedFiles(
        ini=_ini(configuration, entries, settings, directory, version),
        users="".join(_user_line(*user) for user in sorted((users | tombstones).items())),
        hba=_hba([entry for entry in entries if entry.logins and not entry.draining], settings),
    )


def _ini(
    configuration: NodeConfiguration,
    entries: list[NodeEntry],
    settings: PoolerSettings,
    directory: Path,
    version: tuple[int, ...],
) -> str:
    lines, mode = ["[databases]"], _tls_mode(configuration)
    for entry in entries:
        server, size = configuration.servers[entry.server], configuration.size_of(entry)
        connect_query = _value(_connect_query(entry))
        # PgBouncer ignores `pool_size` before its first connection, and any 0.
        lines.append(
            f"{_entry_name(entry.name)} = host={_value(server.host)} port={server.port}"
            f" dbname={_value(entry.database)} user={_value(entry.role)}"
            f" pool_size={size} max_db_connections={size} connect_query={connect_query}"
        )
    lines += [
        "",
        "[pgbouncer]",
        f"listen_addr = {_setting(settings.address)}",
        f"listen_port = {settings.port}",
        f"unix_socket_dir = {_setting(str(directory))}",
        "unix_socket_mode = 0700",
        f"auth_file = {_setting(str(directory / USERS))}",
        f"auth_hba_file = {_setting(str(directory / HBA))}",
        f"max_client_conn = {settings.max_clients}",
        f"query_wait_timeout = {settings.max_wait}",
        f"idle_transaction_timeout = {settings.most_idle_seconds}",
        f"server_tls_sslmode = {_setting(mode)}",
    ]
    if mode in _VERIFYING:
        if settings.authorities is None:
            raise CannotRender("To verify Postgres' certificate, name a file of authorities.")
        lines.append(f"server_tls_ca_file = {_setting(str(settings.authorities))}")
    if settings.certificate is not None:
        lines += [
            "client_tls_sslmode = require",
            f"client_tls_cert_file = {_setting(str(settings.certificate))}",
            f"client_tls_key_file = {_setting(str(settings.key))}",
        ]
    if version >= _EXTRA_PARAMETERS_SINCE:
        # Otherwise that of a connection string would be ignored; so it is refused. A PgBouncer that
        # runs keeps what it started with. CVE-2025-12819 also needs an `auth_user`.
        servers = configuration.servers.values()
        is_reported = all(server.reports_search_path is not False for server in servers)
        lines.append(_TRACKS + _SEARCH_PATH * is_reported)
    if version >= _PREPARED_STATEMENTS_SINCE:
        lines.append("max_prepared_statements = 200")
    if version >= _TENANT_CLIENTS_SINCE:
        most = settings.max_tenant_clients or max(1, settings.max_clients // 4)
        lines.append(f"max_db_client_connections = {most}")
    return "\n".join(lines) + "\n" + _SETTINGS


def _connect_query(entry: NodeEntry) -> str:
    """Its text has the number of recyclings: with another one, PgBouncer replaces connections.

    So the running PgBouncer itself knows which recycling it has seen.
    """
    return _CONNECT_QUERY + (f" -- recycled {entry.recycles}" if entry.recycles else "")


def _tls_mode(configuration: NodeConfiguration) -> str:
    modes = {server.tls_mode for server in configuration.servers.values()}
    if len(modes) > 1:
        raise CannotRender(
            "PgBouncer has one TLS mode for all servers, and these differ:"
            f" {', '.join(sorted(modes))}. Serve them from different nodes."
        )
    return modes.pop() if modes else "disable"  # without a server nothing is connected


def _entry_name(name: str) -> str:
    if not _is_bare(name) or len(name) > _LONGEST_ENTRY or name == "pgbouncer":
        raise CannotRender(f"PgBouncer cannot have an entry with the name {name!r}.")
    return name


def _setting(text: str) -> str:
    """A value to the end of its line, without quotes; spaces at its ends would be lost."""
    if text != text.strip() or not _is_one_line(text):
        raise CannotRender(f"PgBouncer cannot have the setting {text!r}.")
    return text


def _value(text: str) -> str:
    """One of several values on a line."""
    if not _is_one_line(text):
        raise CannotRender(f"PgBouncer cannot have the value {text!r}.")
    return "'" + text.replace("'", "''") + "'"


def _user_line(user: str, password: str) -> str:
    too_long = len(user.encode()) > _LONGEST_USER or len(password.encode()) > _LONGEST_PASSWORD
    # An empty password would let in everybody who gives none.
    if too_long or not password or not _is_one_line(user + password):
        raise CannotRender(f"PgBouncer cannot have the user {user!r}, or not its password.")
    return f"{quoted(user)} {quoted(password)}\n"


def _hba(entries: list[NodeEntry], settings: PoolerSettings) -> str:
    networks = _LOOPBACK if settings.is_loopback else _EVERYWHERE
    kind = "host" if settings.certificate is None else "hostssl"
    return "".join(
        f'{kind} "{entry.name}" {_users(entry)} {network} scram-sha-256\n'
        for entry in entries
        for network in networks
    )


def _users(entry: NodeEntry) -> str:
    return ",".join(quoted(login.user) for login in entry.logins)


def _is_one_line(text: str) -> bool:
    return _breaks_line(text) is None


def _random_text(size: int) -> str:
    return base64.b64encode(secrets.token_bytes(size)).decode()


# Random keys instead of keys derived from a password: no password fits. They are the same for all
# users while the agent runs, so that the file stays the same.
_NO_PASSWORD = f"SCRAM-SHA-256$4096:{_random_text(16)}${_random_text(32)}:{_random_text(32)}"
