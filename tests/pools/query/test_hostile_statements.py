"""What a statement can do to its connection, and to the process that reads it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.domain.errors import StatementFailed
from tests.fixtures.postgres import Database
from tests.fixtures.queries import run_query


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection outside of any transaction."""
    async with database.connected() as connection:
        yield connection


async def shown(connection: asyncpg.Connection, sql: str, *params: object) -> list[bytes]:
    """The rows of *sql*, in a transaction of its own, which is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        return list((await run_query(connection, sql, params, max_rows=10, timeout=30)).rows)
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("target", ["refusing", "a_view", "plain"])
async def test_a_copy_that_fails_before_it_waits_for_data_leaves_the_connection_usable(
    connection: asyncpg.Connection, target: str
) -> None:
    await connection.execute(
        "create table plain (a int); create view a_view as select 1 as a;"
        "create table refusing (a int); create function no() returns trigger language plpgsql"
        " as $$ begin raise exception 'no'; end $$;"
        "create trigger no before insert on refusing execute function no()"
    )
    for number in range(20):
        with pytest.raises(StatementFailed, match="COPY is not supported"):
            await shown(connection, f"copy {target} from stdin")
        assert await connection.fetchval(f"select {number}") == number
        assert await shown(connection, f"select {number}") == [f"[{number}]".encode()]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DateStyle", "SQL"),
        ("DateStyle", "German"),
        ("IntervalStyle", "sql_standard"),
        ("IntervalStyle", "postgres_verbose"),
        ("client_encoding", "LATIN1"),
    ],
)
async def test_rows_in_forms_that_the_statement_chose_are_refused(
    connection: asyncpg.Connection, name: str, value: str
) -> None:
    # For some zones, a time ends with digits under every DateStyle.
    change = f"set_config('TimeZone', 'America/Sao_Paulo', true), set_config('{name}', $1, true)"
    values = "now(), interval '1 mon -1 day', 'Ã©'::text"
    for columns in (f"{change}, {values}", f"row({change}, {values})"):
        with pytest.raises(StatementFailed, match=f"changes {name}"):
            await shown(connection, f"select {columns}", value)
    # It is restored before anybody can have seen it.
    back = f"set_config('{name}', case i when 3 then $1 else $2 end, true)"
    old = await connection.fetchval(f"show {name}")
    await shown(
        connection,
        f"select set_config('TimeZone', 'America/Sao_Paulo', true), {back}, now(), interval '1 day'"
        " from generate_series(1, 4) i",
        value,
        old,
    )
    assert await connection.fetchval(f"show {name}") == old
    assert (await shown(connection, "select 'é'::text")) == ['["é"]'.encode()]


async def test_null_is_no_string_whatever_the_role_prefers(connection: asyncpg.Connection) -> None:
    await connection.execute("set array_nulls = off")
    assert await shown(connection, "select $1::text[]", [None, "NULL"]) == [b'[[null,"NULL"]]']
    assert await shown(connection, "select $1::int[]", [1, None]) == [b"[[1,null]]"]


@pytest.mark.parametrize("delimiter", [":", "|", "^", "]", "."])
async def test_arrays_have_the_delimiter_of_their_type(
    connection: asyncpg.Connection, delimiter: str
) -> None:
    await connection.execute(
        "create type shape;"
        "create function shape_in(cstring) returns shape as 'textin' language internal strict;"
        "create function shape_out(shape) returns cstring as 'textout' language internal strict;"
        "create type shape (input = shape_in, output = shape_out, internallength = variable,"
        f" delimiter = '{delimiter}')"
    )
    values = ["a", "b", "{", '"\\', delimiter, ",", "NULL", None]
    [row] = await shown(connection, "select $1::shape[] as given", values)
    [again] = await shown(connection, "select $1::shape[]::text", values)
    assert row == rb'[["a","b","{","\"\\","' + delimiter.encode() + b'",",","NULL",null]]'
    assert again.startswith(b'["{a' + delimiter.encode() + b"b")


async def test_parameters_are_refused_before_they_grow_without_end(
    connection: asyncpg.Connection,
) -> None:
    """Each level of composites doubles the backslashes inside."""
    await connection.execute("create type inner0 as (a text)")
    for number in range(1, 13):
        await connection.execute(f"create type inner{number} as (a inner{number - 1})")
    await connection.execute(
        f"create type outermost as ({', '.join(f'a{each} inner11' for each in range(100))})"
    )
    value: object = "\\" * 900
    for _ in range(12):
        value = {"a": value}
    with pytest.raises(StatementFailed, match="too large"):
        await shown(connection, "select $1::outermost is null", [value] * 100)
    with pytest.raises(StatementFailed, match="too large"):
        await shown(connection, "select $1::inner11[] is null", [value] * 100)
    many = " and ".join(f"${each}::inner11 is null" for each in range(1, 101))
    with pytest.raises(StatementFailed, match="too large"):
        await shown(connection, f"select {many}", *[value] * 100)


async def test_what_postgres_says_is_shortened(connection: asyncpg.Connection) -> None:
    with pytest.raises(StatementFailed) as raised:
        await shown(
            connection,
            "do $$ begin raise exception '%', repeat('é', 1000000)"
            " using hint = repeat('x', 1000000), errcode = 'ABCDE'; end $$",
        )
    assert raised.value.sqlstate == "ABCDE"
    assert len(raised.value.detail) < 5000
    assert len(raised.value.hint or "") < 5000
