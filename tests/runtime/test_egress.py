"""The service connects only where its operator said, whatever its environment and home say."""

import inspect
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from asyncpg import connect_utils

from app.domain.errors import TenantLoginFailed
from app.embedded import EmbeddedPostgres
from app.pools import driver
from tests.fixtures.app import ok, serving
from tests.fixtures.pools import login_to
from tests.fixtures.postgres import Database

# Everything asyncpg looks up in the environment, and what would break or divert a connection.
POISON = {
    "PGDATABASE": "elsewhere",
    "PGGSSLIB": "no such library",
    "PGHOST": "elsewhere.invalid",
    "PGKRBSRVNAME": "elsewhere",
    "PGPASSFILE": "/dev/null/none",
    "PGPASSWORD": "of another server",
    "PGPORT": "1",
    "PGSERVICE": "elsewhere",
    "PGSERVICEFILE": "/dev/null/none",
    "PGSSLCERT": "/dev/null/none",
    "PGSSLCRL": "/dev/null/none",
    "PGSSLKEY": "/dev/null/none",
    "PGSSLMAXPROTOCOLVERSION": "SSLv3",
    "PGSSLMINPROTOCOLVERSION": "SSLv3",
    "PGSSLMODE": "no such mode",
    "PGSSLNEGOTIATION": "no such way",
    "PGSSLROOTCERT": "/dev/null/none",
    "PGTARGETSESSIONATTRS": "no such server",
    "PGUSER": "somebody",
}


@contextmanager
def poisoned(home: Path) -> Iterator[set[Any]]:
    """An environment and a home that lead elsewhere; returns all addresses connected to."""
    (home / ".pgpass").write_text("*:*:*:*:of another server\n")
    (home / ".pgpass").chmod(0o600)
    (home / ".pg_service.conf").write_text("[elsewhere]\nhost=elsewhere.invalid\n")
    seen: set[Any] = set()
    connect, create_connection = socket.socket.connect, uvloop.Loop.create_connection

    def recording(self: socket.socket, address: Any) -> None:  # noqa: ANN401 - as sockets have it
        seen.add(address)
        connect(self, address)

    async def recording_in_loop(self: Any, factory: Any, host: str, port: int, **more: Any) -> Any:  # noqa: ANN401 - as loops have it
        seen.add((host, port))
        return await create_connection(self, factory, host, port, **more)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in POISON.items():
            patch.setenv(name, value)
        patch.setenv("HOME", str(home))
        patch.setattr(socket.socket, "connect", recording)
        patch.setattr(uvloop.Loop, "create_connection", recording_in_loop)
        yield seen


def test_no_variable_of_the_driver_is_unknown_to_us() -> None:
    """An upgrade that reads another one shows here."""
    source = inspect.getsource(connect_utils)
    read = set(re.findall(r"""(?:getenv|environ\.get)\(\s*["'](\w+)""", source))
    assert read - {"SSLKEYLOGFILE"} == POISON.keys()


async def test_the_service_connects_to_its_declared_servers_and_nowhere_else(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    with poisoned(tmp_path) as addresses:
        async with serving(database, catalog_database, tmp_path / "data") as api:
            for strategy in ("shared", "per_tenant", "per_database"):
                url = await api.tenant(strategy.replace("_", "-"), strategy)
                ok(await api.client.put(f"{url}/pool", json={}), 201)
                assert await api.value(url, "SELECT 42") == 42
    assert addresses == {(database.host, database.port)}


async def test_no_password_means_none_and_not_one_from_elsewhere(
    postgres_server: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = login_to(postgres_server)
    with poisoned(tmp_path):
        (tmp_path / ".pgpass").write_text(f"*:*:*:*:{login.password}\n")
        monkeypatch.setenv("PGPASSWORD", login.password)
        with pytest.raises(TenantLoginFailed):
            await driver.connect(replace(login, password=""), timeout=20)


async def test_an_embedded_server_starts_whatever_the_environment_says(
    enterable_path: Path, tmp_path: Path
) -> None:
    with poisoned(tmp_path):
        server = EmbeddedPostgres(enterable_path / "private", max_connections=30, durable=False)
        try:
            await server.start()
        finally:
            await server.stop()
