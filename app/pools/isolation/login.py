"""How a tenant's connections differ from the admin's: role, password, database, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from app.pools.driver import Login
from app.pools.server import Server

# Part of the first message of a connection, these win over what a role set for its own sessions
# (ALTER ROLE CURRENT_USER SET …), and RESET ALL comes back to them.
_FIXED = {
    # A back-end whose client is gone is noticed within this many milliseconds even in the middle
    # of a long statement, so that its place in the budget is soon free again.
    "client_connection_check_interval": "1000",
    "default_transaction_read_only": "off",
    "exit_on_error": "off",
    "idle_session_timeout": "0",
    # One that does not exist would let nobody in.
    "local_preload_libraries": "",
    "role": "none",
    "row_security": "on",
}


def login_as(
    server: Server,
    role: str,
    password: str,
    *,
    pool_id: str,
    search_path: str,
    settings: Mapping[str, str],
    database: str | None = None,
) -> Login:
    """Log in to *server* as *role*, into *database* or the server's own, with these *settings*.

    The *search_path* must not end in pg_temp where the role may make temporary tables: once its
    schema is gone, every table it makes would be one.
    """
    return replace(
        server.admin_login,
        user=role,
        password=password,
        database=database or server.admin_login.database,
        settings={
            **_FIXED,
            "application_name": f"poolkeeper/{pool_id}",
            "search_path": search_path,
            **settings,
        },
    )
