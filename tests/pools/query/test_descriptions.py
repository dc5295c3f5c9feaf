"""A statement that runs again: its types are not looked up, and it is right in spite of DDL."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app.domain.errors import StatementFailed
from app.pools.query.descriptions import (
    Description,
    Descriptions,
    OutdatedDescription,
    TenantDescriptions,
)
from app.pools.query.json_statement import JsonStatement, StatementResult
from app.pools.query.pg_types import PgType
from app.pools.query.runner import Query
from app.wire.extended_query import ExtendedQuery
from app.wire.reply import Reply
from tests.fixtures.postgres import Database

INT = Description.of(Reply(b"\0\1\0\0\0\27"), {23: PgType(oid=23, name="int4")})


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection inside a transaction, as a lease gives it."""
    async with database.connected() as connection:
        async with connection.transaction():
            await connection.execute("create table note (id serial, v text)")
            # Types are looked up once.
            await Runner(connection)("select 1, '1'::text, '2'::json")
        yield connection


class Runner:
    """Runs statements as those of one tenant, each in a transaction of its own."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.descriptions: TenantDescriptions | None = TenantDescriptions()
        self.exchanges = 0

    async def result(self, sql: str, *params: Any, max_rows: int = 100) -> StatementResult:
        statement = JsonStatement(sql, params, max_rows=max_rows, descriptions=self.descriptions)
        async with self._connection.transaction():
            [result] = await Query([statement], timeout=5).run(self._connection)
        return result

    async def __call__(self, sql: str, *params: Any) -> list[Any]:
        return [json.loads(row) for row in (await self.result(sql, *params)).rows]


@pytest.fixture
def run(connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> Runner:
    runner, ask = Runner(connection), ExtendedQuery.exchange

    async def counted(query: ExtendedQuery, *messages: bytes, max_row_bytes: int = 0) -> Reply:
        runner.exchanges += 1
        return await ask(query, *messages, max_row_bytes=max_row_bytes)

    monkeypatch.setattr(ExtendedQuery, "exchange", counted)
    return runner


async def test_a_statement_that_runs_again_takes_one_exchange_less(run: Runner) -> None:
    for sql, params, exchanges in (
        ("select $1::int", [1], 2),
        ("select $1::int", [2], 1),
        ("insert into note (v) values ($1)", ["a"], 2),
        ("insert into note (v) values ($1)", ["b"], 1),
    ):
        run.exchanges = 0
        await run(sql, *params)
        assert run.exchanges == exchanges
    assert await run("select v from note") == [["a"], ["b"]]


@pytest.mark.parametrize("max_rows", [1, 10, 300])
@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("select $1::json, $2::numeric, $3::bool, $4::int[], $5::text", ["a", 7, True, [1], None]),
        ("select g from generate_series(1, 250) g", []),
        ("select 1 where false", []),
        ("update note set v = 'x' where false", []),
        ("select", []),
    ],
)
async def test_it_returns_the_same_again(
    run: Runner, sql: str, params: list[Any], max_rows: int
) -> None:
    first = await run.result(sql, *params, max_rows=max_rows)
    assert await run.result(sql, *params, max_rows=max_rows) == first


@pytest.mark.parametrize("params", [[], [1, 2], ["x"], [[1]], [True], ["\0"], [10**10]])
async def test_what_does_not_fit_is_refused_as_the_first_time(
    run: Runner, params: list[Any]
) -> None:
    failures = []
    for known in (False, True):
        if known:
            await run("select $1::int", 1)
        with pytest.raises(StatementFailed) as failed:
            await run("select $1::int", *params)
        failures.append((str(failed.value), failed.value.sqlstate))
    assert failures[0] == failures[1]


@pytest.mark.parametrize("value", ["abc", "1"])
async def test_after_ddl_nothing_is_stored_by_the_old_types(
    run: Runner, connection: asyncpg.Connection, value: str
) -> None:
    """Sent as before, "abc" would be invalid JSON, and "1" another value."""
    write = "insert into note (v) values ($1) returning v"
    assert await run(write, value) == [[value]]
    await connection.execute("drop table note; create table note (id serial, v json)")
    with pytest.raises(OutdatedDescription):
        await run(write, value)
    assert await connection.fetchval("select count(*) from note") == 0
    for _ in range(2):
        assert await run(write, value) == [[value]]
    stored = await connection.fetch("select v::text from note")
    assert [each["v"] for each in stored] == [f'"{value}"'] * 2


async def test_after_ddl_a_value_fits_that_did_not(
    run: Runner, connection: asyncpg.Connection
) -> None:
    write = "insert into note (v) values ($1) returning v"
    await run(write, "a")
    await connection.execute("drop table note; create table note (id serial, v bool)")
    new = True
    assert await run(write, new) == [[new]]


async def test_after_ddl_a_failure_is_that_of_the_statement_as_it_is_now(
    run: Runner, connection: asyncpg.Connection
) -> None:
    read = "select v from note"
    await run(read)
    await connection.execute("drop table note")
    with pytest.raises(OutdatedDescription):
        await run(read)
    with pytest.raises(StatementFailed) as failed:
        await run(read)
    assert failed.value.sqlstate == "42P01"


async def test_ddl_earlier_in_the_same_transaction_counts(
    run: Runner, connection: asyncpg.Connection
) -> None:
    descriptions = TenantDescriptions()

    async def both(ddl: str, known: TenantDescriptions | None = descriptions) -> list[bytes]:
        statements = [
            JsonStatement(sql, [], max_rows=9, descriptions=known)
            for sql in ("select v from note", ddl, "select v from note")
        ]
        async with connection.transaction():
            results = await Query(statements, timeout=5).run(connection)
        return list(results[2].rows)

    await run("insert into note (v) values ('7')")
    assert await both("select 1") == [b'["7"]']
    change = "alter table note alter v type int using v::int"
    with pytest.raises(OutdatedDescription):
        await both(change)
    with pytest.raises(OutdatedDescription):
        await both(change)
    assert await both(change, None) == [b"[7]"]


@pytest.mark.parametrize(
    "sql",
    [
        "select row(1, 2)",
        "select 'a'::mood",
        "select " + ", ".join(map(str, range(31))),
        "select 1" + " " * 2000,
        f"select 1 /* {'🐘' * 1000} */",
        "select " + ", ".join(f'1 as "{number:🐘>15}"' for number in range(30)),
    ],
    ids=["record", "type", "columns", "text", "bytes", "names"],
)
async def test_records_types_of_users_and_what_is_long_are_asked_for_each_time(
    run: Runner, connection: asyncpg.Connection, sql: str
) -> None:
    await connection.execute("create type mood as enum ('a')")
    run.descriptions = None
    for _ in range(2):  # built-in types are looked up once
        run.exchanges = 0
        await run(sql)
    expected, run.descriptions = run.exchanges, TenantDescriptions()
    for _ in range(2):
        run.exchanges = 0
        await run(sql)
        assert run.exchanges == expected


def test_the_statements_that_a_tenant_ran_last_are_known() -> None:
    known = TenantDescriptions()
    for number in range(16):
        known.keep(f"select {number}", INT)
    known.find("select 0")
    known.keep("select 16", INT)
    assert known.find("select 0") is known.find("select 16") is INT
    assert known.find("select 1") is None
    known.forget("select 0")
    assert known.find("select 0") is None


def test_many_tenants_leave_no_more_than_the_last_of_them() -> None:
    descriptions = Descriptions()
    first = descriptions.of("t0")
    first.keep("select 1", INT)
    for number in range(1, 500):
        descriptions.of(f"t{number}")
    assert descriptions.of("t0") is first
    for number in range(500):
        descriptions.of(f"u{number}")
    assert descriptions.of("t0").find("select 1") is None
