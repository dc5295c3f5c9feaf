"""What `poolkeeper doctor` finds, and that the SQL it prints is enough."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.cli.doctor import Findings, examine
from app.embedded import EmbeddedPostgres
from app.settings import Settings
from tests.fixtures.canary import SECRET_KEY
from tests.fixtures.postgres import Database
from tests.fixtures.preloaded import preloaded_program
from tests.fixtures.private_postgres import as_installed


def settings(directory: Path, admin: Database, **more: Any) -> Settings:
    login = {
        "host": admin.host,
        "port": admin.port,
        "user": "poolkeeper",
        "password": "secret",
        "tls": "disable",
    }
    return Settings.model_validate(
        {
            "data_dir": directory,
            "servers": {"main": {**login, "database": "app"}},
            "catalog": login,
            "secret_key": SECRET_KEY,
            **more,
        }
    )


def missing(findings: Findings, place: str) -> list[str]:
    return [each.name for each in findings[place] if not each.is_met]


@pytest.fixture
async def admin(private_postgres: EmbeddedPostgres) -> Database:
    """A superuser of a server whose service role may only log in."""
    admin = await as_installed(private_postgres)
    async with admin.connected() as connection:
        await connection.execute("CREATE ROLE poolkeeper LOGIN PASSWORD 'secret'")
        await connection.execute("CREATE DATABASE app")
        await connection.execute("CREATE DATABASE poolkeeper OWNER poolkeeper")
    return admin


async def test_the_sql_it_prints_is_enough(admin: Database, tmp_path: Path) -> None:
    async with replace(admin, database="app").connected() as connection:
        await connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    found = await examine(settings(tmp_path, admin))
    assert missing(found, "server main") == [
        "role",
        "schemas",
        "grants",
        "database",
        "public schema",
        "other databases",
    ]
    assert missing(found, "catalog") == missing(found, "this machine") == []
    async with replace(admin, database="app").connected() as connection:
        for each in found["server main"]:
            if not each.is_met and each.sql:
                await connection.execute(each.sql)
    found = await examine(settings(tmp_path, admin))
    assert missing(found, "server main") == []


async def test_a_catalog_and_keys_that_cannot_be_used_are_found(
    admin: Database, tmp_path: Path
) -> None:
    async with admin.connected() as connection:
        await connection.execute("DROP DATABASE poolkeeper")
        await connection.execute(
            "CREATE DATABASE poolkeeper TEMPLATE template0 ENCODING 'SQL_ASCII'"
            " LOCALE 'C' LOCALE_PROVIDER libc OWNER poolkeeper"
        )
    found = await examine(settings(tmp_path, admin, keys_file=tmp_path / "none.json"))
    [encoding] = [each for each in found["catalog"] if not each.is_met]
    assert "must be in UTF8" in encoding.detail
    assert missing(found, "this machine") == ["API keys"]


async def test_it_prints_what_is_missing_and_exits_with_1(admin: Database, tmp_path: Path) -> None:
    program = preloaded_program(tmp_path)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PG")},
        "POOLKEEPER_DATA_DIR": str(tmp_path / "data"),
        "POOLKEEPER_SECRET_KEY": SECRET_KEY,
    }
    for place in ("SERVERS__MAIN", "CATALOG"):
        login = {"HOST": admin.host, "PORT": str(admin.port), "USER": "poolkeeper"}
        login |= {"PASSWORD": "secret", "TLS": "disable"}
        environment |= {f"POOLKEEPER_{place}__{key}": value for key, value in login.items()}
    environment["POOLKEEPER_SERVERS__MAIN__DATABASE"] = "app"
    for port, printed in [
        (admin.port, "GRANT CREATE ON DATABASE app TO poolkeeper;"),
        (1, "connection: "),
    ]:
        environment["POOLKEEPER_SERVERS__MAIN__PORT"] = str(port)
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
            [program, "doctor"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert printed in done.stdout
        assert done.stderr == ""
