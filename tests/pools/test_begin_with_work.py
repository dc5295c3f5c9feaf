"""While callers wait, what begins a lease is sent together with its first statement."""

# ruff: noqa: PT012 - it is the whole block of a lease that raises

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any
from unittest.mock import patch

import asyncpg
import pytest

from app.domain.errors import LeaseLost, StatementEndedLease, StatementFailed
from app.domain.isolation_level import IsolationLevel
from app.domain.tenant import PoolStrategy
from app.pools import lease
from app.pools.connection import PooledConnection
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from tests.fixtures.pools import OF_ONE, finished, manager_on, pool_of, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

_TENANT = "SELECT current_setting('app.tenant_id', true)"
Run = Callable[[asyncpg.Connection], Awaitable[Any]]


@pytest.fixture
async def manager(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """One connection, just used, for the shared tenants `one` and `two`, who may use a table."""
    async with manager_on(database, configs=OF_ONE) as manager:
        for name in ("one", "two"):
            await provisioned(manager, name, PoolStrategy.SHARED)
        async with database.connected() as admin:
            await admin.execute(
                "CREATE TABLE everybody (id int); GRANT ALL ON everybody TO poolkeeper_shared"
            )
        async with manager.lease("one"):
            pass
        yield manager


@pytest.fixture
def pool(manager: TenantPoolManager) -> Pool:
    return pool_of(manager, "shared@local")


class Waiting:
    """Callers that wait while a lease has the only connection, which then passes on to them."""

    def __init__(self, manager: TenantPoolManager, pool: Pool) -> None:
        self._manager, self._pool = manager, pool

    async def serve(self, *callers: Coroutine[Any, Any, Any]) -> list[Any]:
        """Let *callers* wait, in this order; return what they return or raise."""
        tasks = []
        async with self._manager.lease("one") as connection:
            assert await asks(connection) == "one"
            for caller in callers:
                tasks.append(asyncio.create_task(caller))
                await eventually(lambda: self._pool.waiters.count == len(tasks))
        return await finished(tasks)


@pytest.fixture
def waiting(manager: TenantPoolManager, pool: Pool) -> Waiting:
    return Waiting(manager, pool)


@pytest.fixture
def round_trips(manager: TenantPoolManager, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements for which a lease makes a round trip of its own."""
    sent: list[str] = []
    run = PooledConnection.run

    async def noted(connection: PooledConnection, statements: str) -> None:
        sent.append(statements)
        await run(connection, statements)

    monkeypatch.setattr(PooledConnection, "run", noted)
    return sent


async def copies_in(connection: asyncpg.Connection) -> str:
    await connection.copy_records_to_table("everybody", records=[(1,)])
    return str(await connection.fetchval(_TENANT))


async def prepares(connection: asyncpg.Connection) -> str:
    return str(await (await connection.prepare(_TENANT)).fetchval())


async def uses_a_cursor(connection: asyncpg.Connection) -> str:
    [[tenant]] = [row async for row in connection.cursor(_TENANT)]
    return str(tenant)


async def nests(connection: asyncpg.Connection) -> str:
    async with connection.transaction():
        return str(await connection.fetchval(_TENANT))


async def inserts_many(connection: asyncpg.Connection) -> str:
    await connection.executemany("INSERT INTO everybody VALUES ($1)", [(1,), (2,)])
    return str(await connection.fetchval(_TENANT))


async def runs_a_script(connection: asyncpg.Connection) -> str:
    await connection.execute("INSERT INTO everybody VALUES (1); INSERT INTO everybody VALUES (2)")
    return str(await connection.fetchval(_TENANT))


async def asks(connection: asyncpg.Connection) -> str:
    return str(await connection.fetchval(_TENANT))


@pytest.mark.parametrize(
    "work", [asks, prepares, uses_a_cursor, nests, inserts_many, runs_a_script, copies_in]
)
async def test_whoever_waited_needs_no_round_trip_to_begin(
    manager: TenantPoolManager,
    waiting: Waiting,
    round_trips: list[str],
    work: Callable[[asyncpg.Connection], Awaitable[str]],
) -> None:
    async def works(tenant: str) -> str:
        async with manager.lease(tenant) as connection:
            assert connection.is_in_transaction()
            answer = await work(connection)
            assert connection.is_in_transaction()
        return answer

    assert await waiting.serve(works("one"), works("two"), works("two")) == ["one", "two", "two"]
    assert len(round_trips) == 1 + 4
    assert all("; COMMIT; " in sent for sent in round_trips[1:])
    assert pool_of(manager, "shared@local").recorder.connections_opened == 1


async def test_whoever_finds_an_idle_connection_begins_with_a_round_trip_that_tests_it(
    manager: TenantPoolManager, pool: Pool, round_trips: list[str]
) -> None:
    [idle] = pool.connections.idle
    idle.raw._transport.abort()  # type: ignore[attr-defined] # not heard of yet
    async with manager.lease("one") as connection:
        assert await asks(connection) == "one"
    assert pool.recorder.connections_opened == 2
    assert round_trips[0].startswith("BEGIN READ WRITE; ")


async def test_a_lease_without_a_statement_leaves_its_connection_idle(
    manager: TenantPoolManager, database: Database, waiting: Waiting, round_trips: list[str]
) -> None:
    async def nothing() -> None:
        async with manager.lease("two"):
            pass

    assert await waiting.serve(nothing()) == [None]
    assert len(round_trips) == 3
    async with database.connected() as admin:
        states = await admin.fetch(
            "SELECT state FROM pg_stat_activity WHERE usename = 'poolkeeper_shared'"
        )
    assert [state for [state] in states] == ["idle"]


async def test_who_waits_begins_in_a_context_and_on_terms_of_its_own(
    manager: TenantPoolManager, waiting: Waiting, round_trips: list[str]
) -> None:
    async def shows(tenant: str, **terms: Any) -> list[str]:
        async with manager.lease(tenant, **terms) as connection:
            return [
                await asks(connection),
                str(await connection.fetchval("SHOW transaction_read_only")),
                str(await connection.fetchval("SHOW transaction_isolation")),
            ]

    shown = await waiting.serve(
        shows("two", read_only=True),
        shows("one", isolation_level=IsolationLevel.SERIALIZABLE),
        shows("two"),
    )
    assert shown == [
        ["two", "on", "read committed"],
        ["one", "off", "serializable"],
        ["two", "off", "read committed"],
    ]
    assert len(round_trips) == 5


async def test_what_a_lease_changes_is_rolled_back_with_it(
    manager: TenantPoolManager, database: Database, waiting: Waiting
) -> None:
    async def fails() -> None:
        async with manager.lease("two") as connection:
            await connection.execute("INSERT INTO everybody VALUES (1)")
            await connection.execute("SELECT nothing")

    [error] = await waiting.serve(fails())
    assert isinstance(error, asyncpg.UndefinedColumnError)
    async with database.connected() as admin:
        assert await admin.fetchval("SELECT count(*) FROM everybody") == 0


@pytest.mark.parametrize(
    "work",
    [
        lambda connection: connection.execute("INSERT INTO everybody VALUES (1)"),
        lambda connection: connection.execute("INSERT INTO everybody VALUES ($1)", 1),
        lambda connection: connection.executemany("INSERT INTO everybody VALUES ($1)", [(1,)]),
        lambda connection: connection.copy_records_to_table("everybody", records=[(1,)]),
    ],
    ids=["simple", "extended", "many", "copy"],
)
@pytest.mark.parametrize(
    "begin", ["BEGIN READ WRITE; SET LOCAL nothing = 'one'", "BEGI; SELECT 1", "SELECT 1/0"]
)
async def test_no_work_is_done_if_the_begin_fails(
    manager: TenantPoolManager,
    database: Database,
    waiting: Waiting,
    work: Run,
    begin: str,
) -> None:
    async def tries() -> None:
        with patch.object(lease, "begin_statements", lambda *_: begin):
            trying = manager.lease("one")
            connection = await trying.__aenter__()
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await work(connection)
        with pytest.raises(asyncpg.InterfaceError):
            await work(connection)
        await trying.__aexit__(None, None, None)

    [error] = await waiting.serve(tries())
    assert isinstance(error, LeaseLost)
    async with manager.lease("one") as connection:
        assert await asks(connection) == "one"
    assert pool_of(manager, "shared@local").recorder.connections_opened == 2
    async with database.connected() as admin:
        assert await admin.fetchval("SELECT count(*) FROM everybody") == 0


async def test_a_begin_that_fails_in_a_lease_without_a_statement_loses_it(
    manager: TenantPoolManager, waiting: Waiting
) -> None:
    async def nothing() -> None:
        with patch.object(lease, "begin_statements", lambda *_: "SELECT 1/0"):
            idle = manager.lease("one")
            await idle.__aenter__()
        await idle.__aexit__(None, None, None)

    [error] = await waiting.serve(nothing())
    assert isinstance(error, LeaseLost)
    async with manager.lease("one") as connection:
        assert await asks(connection) == "one"


async def test_values_that_asyncpg_refuses_leave_the_lease_in_its_transaction(
    manager: TenantPoolManager, database: Database, waiting: Waiting
) -> None:
    """After them, asyncpg rolls back unless it knows of a transaction."""

    async def refused() -> str:
        async with manager.lease("two") as connection:
            with pytest.raises(asyncpg.DataError):
                await connection.executemany("INSERT INTO everybody VALUES ($1)", [(1,), ("x",)])
            await connection.execute("INSERT INTO everybody VALUES (2)")
            return await asks(connection)

    assert await waiting.serve(refused()) == ["two"]
    async with database.connected() as admin:
        assert await admin.fetchval("SELECT array_agg(id) FROM everybody") == [2]


async def test_whoever_ends_the_transaction_itself_is_told_so(
    manager: TenantPoolManager, waiting: Waiting
) -> None:
    async def commits() -> None:
        async with manager.lease("two") as connection:
            await connection.execute("COMMIT")
            assert not connection.is_in_transaction()

    [error] = await waiting.serve(commits())
    assert isinstance(error, StatementEndedLease)


async def test_a_first_statement_that_is_cancelled_fails_the_transaction(
    manager: TenantPoolManager, waiting: Waiting
) -> None:
    async def cancelled() -> None:
        async with manager.lease("two") as connection:
            with pytest.raises(TimeoutError):
                await connection.execute("SELECT pg_sleep(60)", timeout=0.1)
            with pytest.raises(asyncpg.InFailedSQLTransactionError):
                await asks(connection)

    [error] = await waiting.serve(cancelled())
    assert isinstance(error, StatementFailed)
    async with manager.lease("two") as connection:
        assert await asks(connection) == "two"


async def test_what_a_clean_up_finds_wrong_is_not_hidden_by_who_waits(
    manager: TenantPoolManager, pool: Pool
) -> None:
    async def works() -> str:
        async with manager.lease("one") as connection:
            return await asks(connection)

    with pytest.raises(StatementEndedLease):
        async with manager.lease("one") as connection:
            await connection.execute("SET LOCAL app.tenant_id = 'two'")
            waits = asyncio.create_task(works())
            await eventually(lambda: pool.waiters.count == 1)
    assert await waits == "one"
    assert pool.recorder.connections_opened == 2
