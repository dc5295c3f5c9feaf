"""The server's host is the directory of a Unix socket."""

from dataclasses import replace
from pathlib import Path

import pytest

from app import wire
from app.domain.errors import ServerUnavailable
from app.domain.tenant import PoolStrategy
from app.embedded import EmbeddedPostgres
from app.pools import driver
from tests.fixtures.pools import manager_on, provisioned, use
from tests.fixtures.private_postgres import restarted, superuser_of


async def test_tenants_of_every_kind_are_served(
    private_postgres: EmbeddedPostgres, enterable_path: Path
) -> None:
    directory = enterable_path / "sockets"
    directory.mkdir()
    directory.chmod(0o777)
    database = await superuser_of(private_postgres)
    async with database.connected() as connection:
        await connection.execute(f"ALTER SYSTEM SET unix_socket_directories = '{directory}'")
    await restarted(private_postgres)
    async with manager_on(replace(database, host=str(directory))) as manager:
        for name, strategy in zip("abc", PoolStrategy, strict=True):
            await provisioned(manager, name, strategy)
            await use(manager, name)
        async with manager.lease("b", transaction=False) as connection:
            with pytest.raises(TimeoutError):
                await connection.execute("SELECT pg_sleep(60)", timeout=0.1)
            assert await connection.fetchval("SELECT inet_client_addr()") is None


async def test_a_directory_without_a_socket_is_a_server_that_is_away(tmp_path: Path) -> None:
    login = wire.Login(host=str(tmp_path), port=5432, user="x", password="x", database="x")
    with pytest.raises(ServerUnavailable, match="cannot be reached: there is no such Unix socket"):
        await driver.connect(login, timeout=5)
