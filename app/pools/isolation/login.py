"""How a tenant's connections differ from the admin's: role, password, database, settings."""

from __future__ import annotations

from dataclasses import replace

from app.pools.driver import Login
from app.pools.server import Server

# A back-end whose client is gone is noticed within this many milliseconds even in the middle of
# a long statement, so that its place in the budget is soon free again. PostgreSQL 14 and later.
_CHECK_INTERVAL = "1000"


def login_as(
    server: Server, role: str, password: str, *, pool_id: str, database: str | None = None
) -> Login:
    """Log in to *server* as *role*, into *database* or the server's own."""
    return replace(
        server.admin_login,
        user=role,
        password=password,
        database=database or server.admin_login.database,
        settings={
            "application_name": f"poolkeeper/{pool_id}",
            "client_connection_check_interval": _CHECK_INTERVAL,
        },
    )
