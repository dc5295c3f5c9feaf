"""Connects to Postgres itself, and to no pooler that stands before it.

A pooler gives each transaction, or each client, another session: what a login fixes for its
session is silently lost there, and so are locks, and what a borrower or tenant must not leave to
the next one. It is known by what it does, not by its name.
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
_LOOK = f"select pg_backend_pid() as pid, current_setting('{_MARK}', true) as mark"
# The statement that was prepared is not known, or another one of that name is.
_SAYS_POOLER = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
_POOLER = (
    "This is not Postgres itself but a pooler such as PgBouncer, where sessions are shared. "
    "Give the address of the Postgres server behind it."
)


async def connect_directly(
    *, settings: Mapping[str, str], timeout: float, **how: Any
) -> asyncpg.Connection:
    """Log in as `connect` does, and make sure that the session is our own: one round trip more.

    Raises:
        Refused: besides what `connect` refuses, what answers is no session of Postgres' own.
        OSError, asyncpg.InterfaceError, asyncpg.PostgresError: as asyncpg has them.
    """
    mark = secrets.token_hex(8)
    try:
        connection = await connect(settings={**settings, _MARK: mark}, timeout=timeout, **how)
    except asyncpg.ProtocolViolationError as error:
        raise ServerRejected(
            "The server does not take the settings that each of our connections needs. If it is a "
            "pooler such as PgBouncer, give the address of the Postgres server behind it."
        ) from error
    is_direct = False
    try:
        async with asyncio.timeout(timeout):
            row = await connection.fetchrow(_LOOK)
        is_direct = row is not None and tuple(row) == (connection.get_server_pid(), mark)
    except _SAYS_POOLER as error:
        raise ServerRejected(_POOLER) from error
    finally:
        if not is_direct:
            connection.terminate()
    if not is_direct:
        raise ServerRejected(_POOLER)
    return connection
