"""One statement from JSON: what binds, what is returned, and what Postgres can refuse."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from jiter import LosslessFloat

from app.domain.errors import LeaseLost, QueryTimeout, ReadOnly, StatementFailed
from app.pools.query.descriptions import TenantDescriptions
from app.pools.query.json_statement import JsonStatement, StatementResult
from app.pools.query.runner import Query
from app.wire.extended_query import ExtendedQuery
from app.wire.reply import Reply
from tests.fixtures.postgres import Database
from tests.fixtures.queries import run_query


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection inside a transaction, as a lease gives it."""
    async with database.connected() as connection:
        await connection.execute(
            "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (n int, t text);"
            " CREATE TABLE note (id int PRIMARY KEY, text text)"
        )
        transaction = connection.transaction()
        await transaction.start()
        yield connection
        if not connection.is_closed():
            await transaction.rollback()


async def execute(
    connection: asyncpg.Connection, sql: str, *params: Any, **limits: Any
) -> StatementResult:
    return await run_query(connection, sql, params, **({"max_rows": 100, "timeout": 5.0} | limits))


def rows_of(result: StatementResult) -> list[Any]:
    return [json.loads(row) for row in result.rows]


SUUID = "6f2a1f0e-8c1b-4a5e-9f43-0c8f3b1d2e4f"

BINDING = [
    ("$1::int", 7, 7),
    ("$1::int", "7", 7),
    ("$1::int8", "-9000000000", -9_000_000_000),
    ("$1::date", "2020-02-29", "2020-02-29"),
    ("$1::timestamptz", "2020-02-29T12:00:00Z", "2020-02-29T12:00:00Z"),
    ("$1::uuid", SUUID, SUUID),
    ("$1::bool", True, True),
    ("$1::bool", "yes", True),
    ("$1::numeric", "12.50", "12.50"),
    ("$1::numeric", 12, "12"),
    ("$1::numeric", LosslessFloat(b"1.10"), "1.10"),
    ("$1::numeric", LosslessFloat(b"1e400"), "1" + "0" * 400),
    ("$1::float8", 1.5, 1.5),
    ("$1::float8", "NaN", "NaN"),
    ("$1::int[]", [1, 2, None], [1, 2, None]),
    ("$1::int[]", "{1,2}", [1, 2]),
    ("$1::int[]", [[1], [2]], [[1], [2]]),
    ("$1::text[]", ["a", 'b"\\', "NULL", "", None], ["a", 'b"\\', "NULL", "", None]),
    ("$1::date[]", "{2020-02-29}", ["2020-02-29"]),
    ("$1::uuid[]", [SUUID], [SUUID]),
    ("($1::jsonb)->>'a'", {"a": [1]}, "[1]"),
    ("($1::jsonb)->>1", [1, 2], "2"),
    ("jsonb_typeof($1)", "text", "string"),
    ("($1::jsonb)::text", [LosslessFloat(b"0.10"), True, None], "[0.10, true, null]"),
    ("$1::mood::text", "glad", "glad"),
    ("$1::int", None, None),
    ("$1::jsonb", None, None),
    ("$1::text", "7", "7"),
    ("$1::name::text", "x", "x"),
    ("$1::inet::text", "10.0.0.1", "10.0.0.1/32"),
    ("$1::interval", "1 mon 1 day", "P1M1D"),
    ("$1::int4range::text", "[1,5)", "[1,5)"),
    ("$1::int4range", [1, 4], "[1,5)"),
    ("$1::int4range", [None, 4], "(,5)"),
    ("$1::int4range", [], "empty"),
    ("$1::int4multirange", ["[1,2)", [4, 5]], ["[1,2)", "[4,6)"]),
    ("$1::bytea", "\\x00ff", "\\x00ff"),
    ("$1::varchar(3)", "abc", "abc"),
    ("$1::pair", {"n": 7, "t": 'a"b'}, {"n": 7, "t": 'a"b'}),
    ("$1::pair", {"t": ""}, {"n": None, "t": ""}),
    ("$1::pair", [7, None], {"n": 7, "t": None}),
    ("$1::pair[]", [{"n": 1}, [2, "x"]], [{"n": 1, "t": None}, {"n": 2, "t": "x"}]),
    ("$1::point", [1, "NaN"], [1, "NaN"]),
    ("$1::lseg[]", [[[0, 0], [1, 1]]], [[[0, 0], [1, 1]]]),
    ("$1::box[]", [[[1, 1], [0, 0]]] * 2, [[[1, 1], [0, 0]]] * 2),
    ("$1::circle", [[0, 0], 2], [[0, 0], 2]),
    ("$1::int2vector", [1, 2], [1, 2]),
    ("$1::json[]", [[1, 2], {"a": 1}], [[1, 2], {"a": 1}]),
    ("row($1::int, array[row('x', null::int)])", 1, [1, [["x", None]]]),
]


async def test_parameters_bind_through_their_text_form(connection: asyncpg.Connection) -> None:
    for expression, given, expected in BINDING:
        result = await execute(connection, f"SELECT {expression}", given)
        assert rows_of(result) == [[expected]], expression


UNFIT = [
    ("$1::int", "seven", "22P02"),
    ("$1::int", 7.5, "22P02"),
    ("$1::int", 2**40, "22003"),
    ("$1::int", True, "22P02"),
    ("$1::int", [1], "22000"),
    ("$1::date", "2020-02-30", "22008"),
    ("$1::uuid", "no", "22P02"),
    ("$1::text", 7, "22000"),
    ("$1::mood", "angry", "22P02"),
    ("$1::int[]", [[1], 2], "22P02"),
    ("$1::int[]", [7.5], "22P02"),
    ("$1::int[]", [True], "22P02"),
    ("$1::int[]", {"a": 1}, "22000"),
    ("$1::pair", [7.9, "x"], "22P02"),
    ("$1::pair", [7], "22000"),
    ("$1::pair", {"n": 1, "other": 2}, "22000"),
    ("$1::int4range", [1, 2, 3], "22000"),
    ("$1::int4multirange", [None], "22000"),
    ("$1::point", [1, None], "22000"),
    ("$1::point", [1, 2, 3], "22P02"),
    ("$1::text", "nul\x00byte", "22021"),
    ("$1::text", "\ud800", "22021"),
    ("$1::jsonb", "nul\x00byte", "22P05"),
    ("$1::jsonb", "\ud800", "22021"),
    ("$1::text[]", ["nul\x00byte"], "22021"),
    ("$1::date", 7, "22000"),
    ("$1::bool", {}, "22000"),
    ("$1::record", "(1)", "0A000"),
    ("$1::pg_node_tree", "x", "0A000"),
]


async def test_what_does_not_fit_is_refused(connection: asyncpg.Connection) -> None:
    for expression, given, sqlstate in UNFIT:
        with pytest.raises(StatementFailed) as raised:
            async with connection.transaction():
                await execute(connection, f"SELECT {expression}", given)
        assert raised.value.sqlstate == sqlstate, expression


@pytest.mark.parametrize("params", [(), (1, 2)])
async def test_the_number_of_parameters_must_fit(
    connection: asyncpg.Connection, params: tuple[int, ...]
) -> None:
    with pytest.raises(StatementFailed, match=rf"takes 1 parameter, and {len(params)} were given"):
        await execute(connection, "SELECT $1::int", *params)


async def test_columns_tell_name_and_type(connection: asyncpg.Connection) -> None:
    result = await execute(connection, "SELECT 1 AS id, 'x'::text AS id, NULL::int[] AS many")
    assert json.loads(result.columns) == [
        {"name": "id", "type": "int4"},
        {"name": "id", "type": "text"},
        {"name": "many", "type": "int4[]"},
    ]
    assert rows_of(result) == [[1, "x", None]]


async def test_rows_beyond_the_limit_are_dropped(
    connection: asyncpg.Connection,
) -> None:
    series = "SELECT generate_series(1, $1::int)"
    for rows, truncated in ((2, False), (3, False), (4, True), (1_000_000, True)):
        result = await execute(connection, series, rows, max_rows=3)
        assert (result.row_count, result.truncated) == (min(rows, 3), truncated)
        assert len(result.rows) == result.row_count


async def test_writes_tell_how_many_rows_they_changed(connection: asyncpg.Connection) -> None:
    for sql, count, status in (
        ("INSERT INTO note SELECT generate_series(1, 5), 'x'", 5, "INSERT 0 5"),
        ("UPDATE note SET text = 'y' WHERE id > 2", 3, "UPDATE 3"),
        ("DELETE FROM note WHERE id = 1", 1, "DELETE 1"),
        ("CREATE TABLE other (id int)", 0, "CREATE TABLE"),
    ):
        result = await execute(connection, sql)
        assert (result.row_count, result.status) == (count, status)
        assert result.columns == b"[]"
        assert result.rows == ()


async def test_returning_gives_rows_and_writes_all(connection: asyncpg.Connection) -> None:
    result = await execute(
        connection,
        "INSERT INTO note SELECT generate_series(1, 5), 'x' RETURNING id",
        max_rows=2,
    )
    assert rows_of(result) == [[1], [2]]
    assert result.truncated
    assert await connection.fetchval("SELECT count(*) FROM note") == 5


async def test_a_select_without_columns_is_possible(connection: asyncpg.Connection) -> None:
    assert (await execute(connection, "SELECT")).status == "SELECT 1"


@pytest.mark.parametrize("sql", ["", " ", ";", "-- nothing"])
async def test_an_empty_statement_is_refused_or_does_nothing(
    connection: asyncpg.Connection, sql: str
) -> None:
    result = await execute(connection, sql)
    assert (result.row_count, result.columns) == (0, b"[]")


REFUSED = [
    ("SELEC 1", "42601", 1),
    ("SELECT * FROM nowhere", "42P01", 15),
    ("SELECT 1; SELECT 2", "42601", None),
    ("SELECT 1/0", "22012", None),
    ("INSERT INTO note VALUES (1), (1)", "23505", None),
    ("VACUUM", "25001", None),
    ("CREATE DATABASE other", "25001", None),
    ("COPY note FROM STDIN", "0A000", None),
    ("-- all\n /* x */ ; copy note TO STDOUT", "0A000", None),
    ("--x\rcopy note FROM STDIN", "0A000", None),
    ("/* a /* b */ c */\f\vCOPY note TO STDOUT", "0A000", None),
    ("/**/" * 26 + "SELEC", "42601", 105),
    ("/* */ " * 16_000 + "SELEC", "42601", 96_001),
    ("--\r" * 30_000 + "SELEC", "42601", 90_001),
    ("/* " * 33_000, "42601", None),
    ("SELECT '\ud800'", "22021", None),
    ("SELECT '\x00'", "22021", None),
]


async def test_a_refused_statement_is_reported_with_sqlstate_and_position(
    connection: asyncpg.Connection,
) -> None:
    for sql, sqlstate, position in REFUSED:
        with pytest.raises(StatementFailed) as raised:
            async with connection.transaction():
                await execute(connection, sql)
        assert raised.value.sqlstate == sqlstate, sql
        assert raised.value.position == position, sql
        assert "127.0.0.1" not in raised.value.detail


async def test_a_hint_is_passed_on(connection: asyncpg.Connection) -> None:
    with pytest.raises(StatementFailed) as raised:
        await execute(connection, "SELECT no_such_function(1)")
    assert "explicit type casts" in (raised.value.hint or "")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO note VALUES (1)",
        "CREATE TABLE other (id int)",
        "WITH gone AS (DELETE FROM note RETURNING id) SELECT * FROM gone",
        "DO $$ BEGIN SET TRANSACTION READ WRITE; INSERT INTO note VALUES (1); END $$",
    ],
)
async def test_a_write_in_a_read_only_transaction_is_refused(
    database: Database, connection: asyncpg.Connection, sql: str
) -> None:
    async with database.connected() as reading, reading.transaction(readonly=True):
        with pytest.raises((ReadOnly, StatementFailed)) as raised:
            await execute(reading, sql)
    if "DO" not in sql:
        assert raised.type is ReadOnly
    assert await connection.fetchval("SELECT count(*) FROM note") == 0


async def test_the_servers_timeout_is_a_query_timeout(connection: asyncpg.Connection) -> None:
    await connection.execute("SET LOCAL statement_timeout = 20")
    with pytest.raises(QueryTimeout, match=r"longer than 0\.02 s"):
        await execute(connection, "SELECT pg_sleep(10)", timeout=0.02)


async def test_a_server_that_does_not_cancel_is_not_waited_for(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pools.query.runner._GRACE", 0.02)
    with pytest.raises(QueryTimeout):
        await execute(connection, "SELECT pg_sleep(10)", timeout=0.02)


async def test_a_connection_that_postgres_ends_is_a_lost_lease_and_says_why(
    connection: asyncpg.Connection,
) -> None:
    with pytest.raises(LeaseLost, match=r"^Postgres ended the connection: \w.*\. Whether the work"):
        await execute(connection, "SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize(
    ("sql", "param", "shown"),
    [
        ("select $1::bit(3)::text", "101", "101"),
        ("select ($1::bit(3)[])[2]::text", "{101,110}", "110"),
        ("select ($1::char(3)[])[1]::text", "{abc}", "abc"),
        ("select $1::interval::text", "90 minutes", "01:30:00"),
    ],
)
async def test_a_types_length_is_not_lost_on_the_way(
    connection: asyncpg.Connection, sql: str, param: str, shown: str
) -> None:
    result = await execute(connection, sql, param)
    assert rows_of(result) == [[shown]]


async def test_an_answer_has_a_size_as_well_as_a_number_of_rows(
    connection: asyncpg.Connection,
) -> None:
    result = await execute(connection, "select repeat('x', 1048576) from generate_series(1, 20)")
    assert (result.row_count, result.truncated) == (7, True)
    with pytest.raises(StatementFailed, match="larger than 8 MiB"):
        await execute(connection, "select repeat('x', 16777216)")


@pytest.mark.parametrize("cell", ["repeat('x', 2000000)", "array[repeat('x', 2000000)]"])
async def test_few_large_rows_are_fetched_at_once(
    connection: asyncpg.Connection, cell: str
) -> None:
    await connection.execute("CREATE SEQUENCE fetched")
    sql = f"SELECT nextval('fetched'), {cell} FROM generate_series(1, 100)"
    result = await execute(connection, sql)
    assert (result.row_count, result.truncated) == (4, True)
    # Their size is known once the first ten have arrived.
    assert await connection.fetchval("SELECT last_value FROM fetched") == 10


@pytest.mark.parametrize(
    "sql", ["SELECT 1", "INSERT INTO note VALUES (1) RETURNING id", "SHOW port"]
)
async def test_few_rows_take_two_round_trips(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    asked = []
    ask = ExtendedQuery.exchange

    async def counted(query: ExtendedQuery, *messages: bytes, max_row_bytes: int = 0) -> Reply:
        asked.append(messages)
        return await ask(query, *messages, max_row_bytes=max_row_bytes)

    await execute(connection, sql.replace("1", "2"))  # its types are known now
    monkeypatch.setattr(ExtendedQuery, "exchange", counted)
    assert (await execute(connection, sql, max_rows=1)).row_count == 1
    assert len(asked) == 2


def several(*statements: str, max_rows: int = 100, timeout: float = 5.0) -> Query[StatementResult]:
    return Query(
        [
            JsonStatement(each, (), max_rows=max_rows, descriptions=TenantDescriptions())
            for each in statements
        ],
        timeout=timeout,
    )


async def test_several_statements_run_in_order_and_stop_at_the_first_failure(
    connection: asyncpg.Connection,
) -> None:
    insert = "INSERT INTO note SELECT generate_series(1, 3)"
    results = await several(insert, "SELECT count(*) FROM note", "DROP TABLE note").run(connection)
    assert [each.status for each in results] == ["INSERT 0 3", None, "DROP TABLE"]
    assert rows_of(results[1]) == [[3]]
    with pytest.raises(StatementFailed) as raised:
        await several("CREATE SEQUENCE s", "SELECT 1/0", "SELECT nextval('s')").run(connection)
    assert (raised.value.sqlstate, raised.value.statement) == ("22012", 1)


async def test_several_statements_have_one_timeout(connection: asyncpg.Connection) -> None:
    await connection.execute("SET LOCAL statement_timeout = 20")
    with pytest.raises(QueryTimeout, match=r"longer than 0\.02 s"):
        await several("SELECT 1", "SELECT pg_sleep(10)", timeout=0.02).run(connection)


async def test_several_results_fit_into_a_response_together(
    connection: asyncpg.Connection,
) -> None:
    large = "select repeat('x', 1048576) from generate_series(1, 4)"
    first, second = await several(large, large).run(connection)
    assert (first.truncated, second.truncated) == (False, True)
    assert first.size + second.size <= 8 * 1024 * 1024
    with pytest.raises(StatementFailed, match="results are larger than 8 MiB"):
        await several(large, large, "SELECT repeat('x', 2000000)").run(connection)


async def test_a_setting_of_one_statement_does_not_change_the_values_of_the_next(
    connection: asyncpg.Connection,
) -> None:
    changes = ("DateStyle = German", "IntervalStyle = iso_8601", "client_encoding = latin1")
    value = "SELECT '2026-11-20'::date, '1 day'::interval, '\u00e9'"
    results = await several(*(f"SET {each}" for each in changes), value).run(connection)
    assert rows_of(results[-1]) == [["2026-11-20", "P1D", "\u00e9"]]
