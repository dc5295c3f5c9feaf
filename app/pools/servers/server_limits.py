"""The limits that a Postgres server reports."""

from dataclasses import dataclass
from typing import Self

import asyncpg

from app.pools.raw_text import as_bytea, starts_with, unquote

# Postgres refuses any interval where its platform cannot check: on Windows, and before 15 on macOS.
_ASK = """
DO $do$
BEGIN
    SET LOCAL client_connection_check_interval = 1000;
    SET poolkeeper.checks_clients = 'on';
EXCEPTION WHEN invalid_parameter_value THEN
    SET poolkeeper.checks_clients = 'off';
END $do$
"""
_QUERY = f"""
select current_setting('server_version') as version,
       current_setting('max_connections')::int as max_connections,
       current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0) as reserved,
       current_setting('default_transaction_read_only')::bool as read_only,
       current_setting('poolkeeper.checks_clients')::bool as checks_clients,
       current_setting('server_version_num')::int >= 180000 as reports_search_path,
       (select {as_bytea("setting")}
        from pg_db_role_setting, pg_database, unnest(setconfig) as setting
        where setrole = 0 and setdatabase = pg_database.oid and datname = current_database()
            and {starts_with("setting", "search_path=")}) as search_path
"""  # noqa: S608 - expressions of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The limits and settings of a server.

    Attributes:
        read_only: whether transactions are read-only by default, as hosters set it while a disk is
            full: for the server, its database, all roles, or the admin's role.
        checks_clients: whether a back-end can notice during a statement that its client has gone.
        reports_search_path: whether it tells its client, as a pooler is, of each new search_path.
    """

    version: str
    max_connections: int
    reserved: int
    read_only: bool = False
    checks_clients: bool = True
    reports_search_path: bool = True
    search_path: str | None = None

    @classmethod
    async def read(cls, connection: asyncpg.Connection) -> Self:
        """Read them from the server.

        Raises:
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: from asyncpg.
        """
        await connection.execute(_ASK)
        row = dict(await connection.fetchrow(_QUERY) or {})
        return cls(**{**row, "search_path": _path(row["search_path"])})


def _path(setting: bytes | None) -> str | None:
    """The search_path in a setting; None if it is not valid UTF-8."""
    try:
        return unquote(setting).decode().removeprefix("search_path=") if setting else None
    except UnicodeDecodeError:
        return None
