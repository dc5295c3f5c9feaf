"""The private names of asyncpg that connections and `app.wire` depend on, one by one."""

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy

from app.pools.connection import PooledConnection
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

PRIVATE = (
    "_cancel_current_command",
    "_drop_local_statement_cache",
    "_drop_local_type_cache",
    "_listeners",
    "_log_listeners",
    "_loop",
    "_pool_release_ctr",
    "_protocol",
    "_query_loggers",
    "_termination_listeners",
    "_top_xact",
    "_transport",
)


async def test_a_connection_has_every_private_name_we_use(database: Database) -> None:
    async with database.connected() as raw:
        assert [name for name in PRIVATE if not hasattr(raw, name)] == []


def test_a_proxy_can_be_detached() -> None:
    assert callable(getattr(PoolConnectionProxy, "_detach", None))


async def test_an_announced_transaction_makes_the_next_one_a_savepoint(database: Database) -> None:
    async with database.connected() as raw:
        pooled = PooledConnection(raw, now=0, max_lifetime=60, epoch=0, generation=0)
        await raw.execute("BEGIN")
        pooled.mark_in_transaction()
        lent = pooled.attach_proxy()
        async with lent.transaction():
            await lent.execute("CREATE TABLE made (id int)")
        assert raw.is_in_transaction()
        pooled.detach_proxy()
        with pytest.raises(asyncpg.InterfaceError):
            await lent.execute("SELECT 1")
        await raw.execute("ROLLBACK")
        assert await raw.fetchval("SELECT to_regclass('made')") is None
        async with raw.transaction():
            assert raw.is_in_transaction()
        assert not raw.is_in_transaction()


async def test_a_changed_type_is_forgotten_while_lent(database: Database) -> None:
    async with database.connected() as raw:
        pooled = PooledConnection(raw, now=0, max_lifetime=60, epoch=0, generation=0)
        lent = pooled.attach_proxy()
        await lent.execute("CREATE TABLE seen (id int); INSERT INTO seen VALUES (1)")
        assert tuple(await lent.fetchrow("SELECT * FROM seen") or ()) == (1,)
        await lent.execute("ALTER TABLE seen ADD name text DEFAULT 'x'")
        assert tuple(await lent.fetchrow("SELECT * FROM seen") or ()) == (1, "x")
        pooled.detach_proxy()


async def test_the_pid_is_known_after_the_end(database: Database) -> None:
    raw = await database.connect()
    pooled = PooledConnection(raw, now=0, max_lifetime=60, epoch=0, generation=0)
    pid = raw.get_server_pid()
    raw.terminate()
    assert not pooled.is_connected()
    assert pooled.pid == pid


async def test_a_borrower_between_two_round_trips_hears_that_it_was_cut(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = await database.connect()
    pooled = PooledConnection(raw, now=0, max_lifetime=60, epoch=0, generation=0)
    lent = pooled.attach_proxy()
    prepare = asyncpg.Connection._get_statement  # type: ignore[attr-defined]

    async def prepare_and_be_cut(*args: object, **options: object) -> object:
        statement = await prepare(*args, **options)
        pooled.terminate()
        return statement

    monkeypatch.setattr(asyncpg.Connection, "_get_statement", prepare_and_be_cut)
    with pytest.raises(asyncpg.InterfaceError):
        await lent.fetchval("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError):
        await pooled.run("SELECT 1")


async def test_a_listener_of_its_end_hears_when_the_peer_closes(database: Database) -> None:
    ended: list[object] = []
    raw = await database.connect()
    raw.add_termination_listener(ended.append)
    async with database.connected() as admin:
        await admin.execute("SELECT pg_terminate_backend($1, 5000)", raw.get_server_pid())
    await eventually(lambda: ended == [raw])
