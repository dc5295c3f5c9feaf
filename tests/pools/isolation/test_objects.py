"""Statements about roles, schemas and databases: names are quoted, and a batch logs in once."""

import asyncio

import asyncpg
import pytest

from app.pools.isolation.objects import execute, reset_settings, sql
from app.pools.servers import admin_connections
from app.pools.servers.admin_connections import AdminConnections
from app.wire import Login
from tests.fixtures.control import PERSON, Control, spec_of
from tests.fixtures.postgres import Database

NAMES = [
    "plain",
    "Mixed Case",
    'a"b',
    '"',
    "a'b",
    "\\",
    "\\'; DROP ROLE x; --",
    "%I",
    "%L%%",
    "$1",
    "$do$",
    "ü\n\t",
    "select",
]


@pytest.mark.parametrize("name", NAMES)
async def test_names_are_what_postgres_reads(database: Database, name: str) -> None:
    async with database.connected() as connection:
        [row] = await connection.fetch(sql("SELECT %L AS %I, '100 %%' AS share", name, name))
    assert dict(row) == {name: name, "share": "100 %"}


async def test_a_batch_of_tenants_logs_in_once_as_admin(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_connections, "_KEPT_SECONDS", 600.0)
    opened: list[str | Login | None] = []
    really_open = AdminConnections.open

    async def open_(self: AdminConnections, into: str | Login | None = None) -> asyncpg.Connection:
        opened.append(into)
        return await really_open(self, into)

    monkeypatch.setattr(AdminConnections, "open", open_)
    ids = [f"batch-{number}" for number in range(5)]
    for each in ids:
        await control.declare(spec_of(each))
    await asyncio.gather(
        *(control.provisioning.provision(control.state(each), PERSON) for each in ids)
    )
    assert opened.count(None) == 1
    # The others are logins as the tenants themselves, which show that they can.
    users = [login.user for login in opened if isinstance(login, Login)]
    assert sorted(users) == [f"tenant_{each}" for each in ids]


async def test_settings_of_a_role_that_is_gone_cannot_be_reset_unnoticed(
    database: Database,
) -> None:
    async with database.connected() as connection:
        with pytest.raises(asyncpg.UndefinedObjectError, match="nobody"):
            await execute(connection, reset_settings("nobody"))
