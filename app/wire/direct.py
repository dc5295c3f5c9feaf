"""Connects to Postgres itself, and to no pooler that stands before it.

A pooler gives each transaction, or each client, another session: settings of a login are
silently lost there, and so are locks, and what a borrower or tenant must not leave to the next
one. It is detected by what it does, not by its name.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import asyncpg

from app.wire.connect import connect
from app.wire.errors import ServerRejected

_MARK = "poolkeeper.session"
_QUERY = f"select pg_backend_pid() as pid, current_setting('{_MARK}', true) as mark"
# The prepared statement is unknown there, or another one has its name.
_POOLER_ERRORS = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
_POOLER = (
    "This is not Postgres itself but a pooler such as PgBouncer, where sessions are shared. "
    "Give the address of the Postgres server behind it."
)


async def connect_directly(
    *, settings: Mapping[str, str], timeout: float, **login: Any
) -> asyncpg.Connection:
    """Log in as `connect` does, and check that the session is our own: one more round trip.

    Raises:
        Refused: besides what `connect` refuses, what answers is no session of Postgres' own.
        OSError, asyncpg.InterfaceError, asyncpg.PostgresError: as asyncpg raises them.
    """
    mark = secrets.token_hex(8)
    try:
        connection = await connect(settings={**settings, _MARK: mark}, timeout=timeout, **login)
    except asyncpg.ProtocolViolationError as error:
        raise ServerRejected(
            "The server refuses settings that each connection needs. If it is a pooler such as "
            "PgBouncer, give the address of the Postgres server behind it."
        ) from error
    is_direct = False
    try:
        async with asyncio.timeout(timeout):
            row = await connection.fetchrow(_QUERY)
        is_direct = row is not None and tuple(row) == (connection.get_server_pid(), mark)
    except _POOLER_ERRORS as error:
        raise ServerRejected(_POOLER) from error
    finally:
        if not is_direct:
            connection.terminate()
    if not is_direct:
        raise ServerRejected(_POOLER)
    return connection
