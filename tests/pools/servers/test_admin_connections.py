"""Admin connections: few, reused, and as good as new for the next user."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from app.domain.errors import ConnectFailed, ServerUnavailable
from app.pools import driver
from app.pools.servers import admin_connections
from app.pools.servers.admin_connections import AdminConnections
from app.wire import NO_TIMEOUTS, Login
from tests.fixtures.pools import login_to
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

_SOURCES = "SELECT source FROM pg_settings WHERE name = ANY($1)"


class Admins:
    """Counts admin connections."""

    def __init__(self, login: Login) -> None:
        self.login = replace(login, settings={"application_name": "counted admin"})
        self.opened: list[asyncpg.Connection] = []
        self.may_connect = True
        self.connections = AdminConnections(
            self.login,
            connect=self._connect,
            may_connect=lambda: self.may_connect,
            answer_timeout=30.0,
        )

    async def _connect(self, login: Login) -> asyncpg.Connection:
        self.opened.append(await driver.connect(login, timeout=30))
        return self.opened[-1]

    @property
    def open_count(self) -> int:
        return sum(not each.is_closed() for each in self.opened)


@pytest.fixture
async def admins(database: Database) -> AsyncIterator[Admins]:
    admins = Admins(login_to(database))
    yield admins
    await admins.connections.close()
    assert admins.open_count == 0


async def test_timeouts_that_are_set_for_a_database_do_not_apply(
    admins: Admins, database: Database
) -> None:
    async with database.connected() as connection:
        for timeout in NO_TIMEOUTS:
            await connection.execute(f"ALTER DATABASE {database.database} SET {timeout} = '10s'")
    async with admins.connections.use() as connection:
        rows = await connection.fetch(_SOURCES, list(NO_TIMEOUTS))
        assert {row["source"] for row in rows} == {"client"}


async def test_no_timeout_of_transactions_holds_for_the_next_user_either(
    admins: Admins, database: Database
) -> None:
    async with database.connected() as connection:
        await connection.execute(
            f"ALTER DATABASE {database.database} SET transaction_timeout = '10s'"
        )
    for _ in range(2):
        async with admins.connections.use() as used:
            assert await used.fetchval("SHOW transaction_timeout") == "0"
    assert len(admins.opened) == 1


async def test_the_next_user_gets_the_open_connection_as_if_it_were_new(admins: Admins) -> None:
    async with admins.connections.use() as connection:
        settings = await connection.fetch("select name, setting from pg_settings order by name")
        await connection.execute("SET lock_timeout = '17s'; SET work_mem = '1MB'")
        await connection.execute("SELECT pg_advisory_lock(1)")
    async with admins.connections.use() as again:
        assert again is connection
        assert settings == await again.fetch("select name, setting from pg_settings order by name")
        assert (
            await again.fetchval("select count(*) from pg_locks where locktype = 'advisory'") == 0
        )


async def test_one_that_was_ended_meanwhile_is_replaced(admins: Admins, database: Database) -> None:
    async with admins.connections.use() as connection:
        pid = connection.get_server_pid()
    async with database.connected() as other:
        await other.execute("select pg_terminate_backend($1, 30000)", pid)
    async with admins.connections.use() as connection:
        assert connection.get_server_pid() != pid


async def test_one_whose_work_failed_or_did_not_end_is_not_handed_on(admins: Admins) -> None:
    with pytest.raises(ZeroDivisionError):
        async with admins.connections.use():
            raise ZeroDivisionError
    async with admins.connections.use() as connection:
        await connection.execute("BEGIN")
    async with admins.connections.use():
        pass
    assert len(admins.opened) == 3
    assert admins.open_count == 1


async def test_an_idle_one_is_closed_after_a_moment(
    admins: Admins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_connections, "_KEPT_SECONDS", 0.0)
    async with admins.connections.use():
        pass
    await eventually(lambda: admins.open_count == 0)


async def test_there_is_one_in_its_own_database_and_one_elsewhere(admins: Admins) -> None:
    seen: list[int] = []
    used: set[str | None] = set()

    async def work(into: str | None) -> None:
        async with admins.connections.use(into) as connection:
            used.add(into)
            # The first one in each database waits for that in the other.
            await eventually(lambda: len(used) == 2)
            seen.append(admins.open_count)
            await connection.fetchval("select 1")

    await asyncio.gather(*(work(into) for into in [None, "postgres"] * 8))
    assert max(seen) == 2
    # Those to other databases are not kept: nobody could drop such a database.
    assert len(admins.opened) == 1 + 8


async def test_a_wait_that_takes_too_long_ends(
    admins: Admins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_connections, "_ACQUIRE_DEADLINE", 0.0)
    async with admins.connections.use():
        with pytest.raises(ServerUnavailable, match="stayed busy"):
            async with admins.connections.use():
                pass


async def test_an_open_one_is_not_used_by_an_instance_that_may_not_be_active(
    admins: Admins,
) -> None:
    async with admins.connections.use():
        pass
    admins.may_connect = False
    with pytest.raises(ConnectFailed, match="still the active one"):
        async with admins.connections.use():
            pass
    assert admins.open_count == 0
