"""A query that begins its lease: the transaction, its context and the statement are sent together.

A statement whose values are text is even executed, and its lease ended, before any answer has
arrived.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain.errors import (
    QueryTimeout,
    ReadOnly,
    SchemaMissing,
    StatementEndedLease,
    StatementFailed,
)
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools.connection import PooledConnection
from app.pools.manager import TenantPoolManager
from app.pools.query.descriptions import TenantDescriptions
from app.pools.query.json_statement import JsonStatement
from app.pools.query.runner import Query
from app.pools.query.text_statement import TextStatement
from app.wire.extended_query import ExtendedQuery
from tests.fixtures.pools import manager_on, pool_of, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

STORED = "Return less, for example with LIMIT. What the statement changed is stored."
ROLLED_BACK = "Nothing was changed. Return less, for example with LIMIT."
WHO = "select current_user::text, current_setting('transaction_read_only'), $1::int"


@pytest.fixture
async def manager(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """A tenant whose pool has one connection, so that the next query gets the same one."""
    configs = {PoolStrategy.PER_TENANT: PoolConfig.per_tenant(pool_size=1)}
    async with manager_on(database, configs=configs) as manager:
        await provisioned(manager, "acme")
        async with manager.lease("acme") as connection:
            await connection.execute("create table note (id int primary key)")
        yield manager


class Asker:
    """Queries as the query endpoint does, or as a serverless driver, whose values are text."""

    def __init__(self, manager: TenantPoolManager, *, as_text: bool) -> None:
        self._manager = manager
        self._as_text = as_text

    async def __call__(
        self, sql: str, *params: object, read_only: bool = False, timeout: float = 30
    ) -> list[Any]:
        """The rows, with their values as text."""
        query: Query[Any]
        if self._as_text:
            text = TextStatement(sql, params, as_arrays=True, raw_text=True, is_alone=True)
            query = Query([text], timeout=timeout)
        else:
            query = Query(
                [JsonStatement(sql, params, max_rows=100, descriptions=TenantDescriptions())],
                timeout=timeout,
            )
        async with self._manager.lease(
            "acme", read_only=read_only, statement_timeout=timeout, work=query
        ) as connection:
            [result] = await query.run(connection)
            rows = json.loads(b"[%b]" % b",".join(result.rows))
            return [[str(value) for value in row] for row in rows]


@pytest.fixture(params=[False, True], ids=["json", "text"])
def ask(request: pytest.FixtureRequest, manager: TenantPoolManager) -> Asker:
    return Asker(manager, as_text=request.param)


def backends(manager: TenantPoolManager) -> set[int]:
    """The back-ends of the tenant's pool."""
    pool = pool_of(manager, "acme")
    return {each.pid for each in (*pool.connections.idle, *pool.connections.leased)}


async def test_it_runs_in_the_context_and_the_transaction_of_its_lease(ask: Asker) -> None:
    for read_only, shown in ((True, "on"), (False, "off")):
        assert await ask(WHO, "7", read_only=read_only) == [["tenant_acme", shown, "7"]]


async def test_what_it_writes_is_committed_or_refused(ask: Asker) -> None:
    with pytest.raises(ReadOnly):
        await ask("insert into note values (1)", read_only=True)
    await ask("insert into note values (2)")
    assert await ask("select id from note") == [["2"]]


async def test_a_refused_statement_leaves_its_connection_for_the_next(
    ask: Asker, manager: TenantPoolManager
) -> None:
    before = backends(manager)
    for sql in (
        *("selec", "select * from nowhere", "select 1/0", "insert into note values (1), (1)"),
        *("select $1::int", "copy note to stdout", "copy note from stdin"),
    ):
        with pytest.raises(StatementFailed):
            await ask(sql)
    for sql in ("rollback", "commit and chain"):
        with pytest.raises(StatementEndedLease):
            await ask(sql)
    assert await ask("select count(*) from note") == [["0"]]
    assert backends(manager) == before


async def test_an_encoding_that_python_lacks_closes_no_connection(
    ask: Asker, manager: TenantPoolManager
) -> None:
    before = backends(manager)
    await ask("set client_encoding = 'EUC_TW'")
    assert await ask("select 'é'") == [["é"]]
    assert backends(manager) == before


async def test_what_takes_too_long_ends(ask: Asker) -> None:
    with pytest.raises(QueryTimeout):
        await ask("select pg_sleep(600)", timeout=0.2)
    assert await ask("select 1") == [["1"]]


async def test_where_no_lease_can_begin_its_error_is_the_leases(
    ask: Asker, manager: TenantPoolManager
) -> None:
    async with manager.lease("acme") as connection:
        await connection.execute("drop schema tenant_acme cascade")
    with pytest.raises(SchemaMissing):
        await ask("select 1")
    # The connection that was tried works, and the next query gets the same error.
    with pytest.raises(SchemaMissing):
        await ask("select 1")


async def test_a_dead_connection_is_replaced_unseen(
    ask: Asker, manager: TenantPoolManager, database: Database
) -> None:
    [pid] = backends(manager)
    async with database.connected() as connection:
        await connection.execute(f"select pg_terminate_backend({pid}, 5000)")
    assert await ask(WHO, "1") == [["tenant_acme", "off", "1"]]


@pytest.mark.parametrize("moment", range(8))
async def test_one_that_is_given_up_leaves_nothing_behind(
    ask: Asker, manager: TenantPoolManager, moment: int
) -> None:
    asking = asyncio.create_task(ask("insert into note select 5 from pg_sleep(60)"))
    for _ in range(moment):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    assert await ask("select count(*) from note") == [["0"]]
    await eventually(lambda: len(backends(manager)) == 1)


async def test_a_statement_of_text_takes_one_round_trip(
    manager: TenantPoolManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Asker(manager, as_text=True)
    assert await ask("") == []  # this opens the connection, so that for a while it needs no test
    monkeypatch.setattr("app.pools.lease._BYPASS_WINDOW", 600)
    monkeypatch.delattr(ExtendedQuery, "exchange")
    monkeypatch.delattr(PooledConnection, "run")
    assert await ask("select g, $1::text from generate_series(1, 9) g", "x") == [
        [str(number), "x"] for number in range(1, 10)
    ]
    assert await ask("insert into note values (3) returning id") == [["3"]]


async def test_text_of_more_rows_than_a_batch_comes_whole(manager: TenantPoolManager) -> None:
    ask = Asker(manager, as_text=True)
    rows = await ask("select g from generate_series(1, 5000) g")
    assert rows == [[str(number)] for number in range(1, 5001)]


@pytest.mark.parametrize(("count", "size"), [(90, 100_000), (1, 9_000_000), (300_000, 100)])
async def test_what_is_stored_though_its_text_is_too_large_is_said(
    manager: TenantPoolManager, count: int, size: int
) -> None:
    ask = Asker(manager, as_text=True)
    await ask("select 1")
    for _ in range(3):
        with pytest.raises(StatementFailed) as failed:
            await ask(
                f"insert into note select g from generate_series(1, {count}) g "
                f"returning id, repeat('x', {size})"
            )
        assert failed.value.sqlstate == "54000"
        stored = count if failed.value.hint == STORED else 0
        assert stored or (failed.value.hint or "").startswith("Nothing was changed.")
        assert await ask("select count(*) from note") == [[str(stored)]]
        await ask("delete from note")


async def test_postgres_is_asked_to_stop_what_is_too_large(manager: TenantPoolManager) -> None:
    ask = Asker(manager, as_text=True)
    # Not `from generate_series`, which makes all rows before it sends the first.
    for _ in range(3):
        with pytest.raises(StatementFailed) as failed:
            await ask("select repeat('x', 1000), generate_series(1, 100000000)", timeout=300)
        assert (failed.value.sqlstate, failed.value.hint) == ("54000", ROLLED_BACK)
        assert await ask("select 1") == [["1"]]


async def test_what_only_reads_is_not_said_to_be_stored(manager: TenantPoolManager) -> None:
    ask = Asker(manager, as_text=True)
    with pytest.raises(StatementFailed) as failed:
        await ask("/* large */ select repeat('x', 9000000)")
    assert failed.value.hint == (
        "Return less, for example with LIMIT. If a function that it called changed anything, "
        "that is stored."
    )
    with pytest.raises(StatementFailed) as failed:
        await Asker(manager, as_text=False)("select repeat('x', 9000000)")
    assert failed.value.detail == "A single row is larger than 8 MiB."
    assert (failed.value.hint or "").startswith("Nothing was changed.")


async def test_a_deferred_failure_of_the_commit_is_the_statements(
    manager: TenantPoolManager,
) -> None:
    ask = Asker(manager, as_text=True)
    await ask("create table later (id int unique deferrable initially deferred)")
    with pytest.raises(StatementFailed) as failed:
        await ask("insert into later values (1), (1)")
    assert failed.value.sqlstate == "23505"
    assert await ask("select count(*) from later") == [["0"]]
