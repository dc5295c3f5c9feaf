"""Prepares a new server before others may connect: creates two databases, closed to PUBLIC."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from app import wire
from app.embedded.errors import EmbeddedPostgresError

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 60.0
"""For one statement; creating a database copies some 8 MB and writes them to disk."""


@dataclass(frozen=True, slots=True)
class EmbeddedAddress:
    """The address of the embedded server, and the login of its superuser."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    catalog_database: str = "poolkeeper_catalog"
    tenant_database: str = "poolkeeper"


async def create_databases(address: EmbeddedAddress) -> None:
    """Create missing databases, and revoke PUBLIC's right to connect.

    Raises:
        EmbeddedPostgresError: the server refuses.
    """
    ours = (address.catalog_database, address.tenant_database)
    async with _superuser(address) as connection:
        for name in ours:
            if not await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name
            ):
                await _execute(connection, "CREATE DATABASE %I", name)
        for name in (*ours, "postgres", "template1"):
            await _execute(connection, "REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC", name)


async def _execute(connection: asyncpg.Connection, statement: str, name: str) -> None:
    await connection.execute(
        await connection.fetchval("SELECT format($1, $2::text)", statement, name)
    )


@asynccontextmanager
async def _superuser(address: EmbeddedAddress) -> AsyncIterator[asyncpg.Connection]:
    try:
        login = wire.Login(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database="postgres",
            settings={"application_name": "poolkeeper-embedded"},
        )
        connection = await wire.connect(
            login, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT_SECONDS)
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise EmbeddedPostgresError(
            "the embedded Postgres refuses its own password: the file postgres-password "
            "does not belong to this cluster; remove it to set a new password",
        ) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise EmbeddedPostgresError(
            f"the embedded Postgres does not answer: {str(error) or 'timeout'}"
        ) from error
