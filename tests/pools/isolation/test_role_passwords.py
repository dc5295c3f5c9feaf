"""What Postgres makes of the verifiers that roles get: the embedded one and Debian's."""

import ssl
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app import wire
from app.domain.scram import scram_verifier
from app.pools.isolation.role_passwords import OWN_ITERATIONS, RolePasswords
from tests.fixtures.canary import SECRET_KEY
from tests.fixtures.postgres import Database
from tests.fixtures.tls import TlsPostgres

ROLE = "tenant_verified"
ROLE_PASSWORDS = RolePasswords(SECRET_KEY.encode())


async def iterations_of_login(
    server: Database, tls: ssl.SSLContext | None, password: str
) -> int | None:
    """Log in as the role; returns how many iterations stretched the password."""
    connection = await wire.connect(
        wire.Login(
            host=server.host,
            port=server.port,
            user=ROLE,
            password=password,
            database=server.database,
            tls=tls or False,
        ),
        timeout=180,
    )
    try:
        assert await connection.fetchval("SELECT current_user") == ROLE
        iterations: int | None = getattr(connection, "scram_iterations")  # noqa: B009 - of `wire`
        return iterations
    finally:
        await connection.close(timeout=180)


async def take_verifiers(
    admin: asyncpg.Connection, server: Database, tls: ssl.SSLContext | None = None
) -> None:
    """Postgres accepts verifiers of any number of iterations, and the password logs in."""
    password = ROLE_PASSWORDS.password("local", ROLE)
    await admin.execute(f"CREATE ROLE {ROLE} LOGIN")
    try:
        for verifier, iterations in (
            (ROLE_PASSWORDS.verifier("local", ROLE), OWN_ITERATIONS),
            (scram_verifier(password, iterations=4096), 4096),
            (ROLE_PASSWORDS.verifier("local", ROLE), OWN_ITERATIONS),
        ):
            await admin.execute(f"ALTER ROLE {ROLE} PASSWORD '{verifier}'")
            stored = "SELECT rolpassword FROM pg_authid WHERE rolname = $1"
            assert await admin.fetchval(stored, ROLE) == verifier
            assert await iterations_of_login(server, tls, password) == iterations
            with pytest.raises(asyncpg.InvalidPasswordError):
                await iterations_of_login(server, tls, f"{password}x")
    finally:
        await admin.execute(f"DROP ROLE {ROLE}")


@pytest.fixture
async def debian(tls_postgres: TlsPostgres) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to Debian's server."""
    async with tls_postgres.admin() as connection:
        yield connection


async def test_the_embedded_server_takes_verifiers_of_one_iteration(database: Database) -> None:
    async with database.connected() as admin:
        await admin.execute(f"GRANT CONNECT ON DATABASE {database.database} TO PUBLIC")
        await take_verifiers(admin, database)


async def test_debians_server_takes_verifiers_of_one_iteration(
    debian: asyncpg.Connection, tls_postgres: TlsPostgres
) -> None:
    tls = ssl.create_default_context(cafile=tls_postgres.authorities.file)
    await take_verifiers(debian, tls_postgres.database, tls)


def test_no_two_verifiers_of_a_password_are_alike() -> None:
    assert ROLE_PASSWORDS.verifier("local", ROLE) != ROLE_PASSWORDS.verifier("local", ROLE)
