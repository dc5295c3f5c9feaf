"""A statement that is committed in the round trip that executes it ends as any other does.

Two like tenants run each statement: committed at once, and in a lease that is committed after its
result was read. The test compares what they get, what they have stored, and what is left of the
session.
"""

import json
from collections.abc import AsyncIterator

import pytest

from app.domain.errors import PoolkeeperError, StatementFailed
from app.pools.manager import TenantPoolManager
from app.pools.query.runner import Query
from app.pools.query.text_statement import TextStatement
from tests.fixtures.pools import OF_ONE, manager_on, provisioned
from tests.fixtures.postgres import Database

SETUP = """
create table other (id int primary key);
create table note (id int unique deferrable initially deferred, body text);
create table strict (id int primary key, n int check (n > 0), ref int references other
    deferrable initially deferred);
create function fails() returns trigger language plpgsql as $$ begin
    raise exception 'failed' using errcode = new.body, detail = 'd', hint = 'h'; end $$;
create constraint trigger fails after insert on note deferrable initially deferred
    for each row when (new.body ~ '^[0-9A-Z]{5}$') execute function fails();
create function fails_now(code text) returns text language plpgsql as $$ begin
    raise exception 'now' using errcode = code; end $$;
create procedure commits() language plpgsql as $$ begin commit; end $$;
create procedure adds(inout a int) language plpgsql as $$ begin a := a + 1; end $$;
create function noisy() returns int language plpgsql as $$ begin
    for i in 1..500 loop raise notice '%', repeat('n', 300); end loop; return 1; end $$;
create function executes(what text) returns text language plpgsql as $$ begin
    execute what; return what; end $$;
"""
CODES = (
    *("57014", "57P01", "08006", "22012", "22P02", "25P02", "40001", "26000", "25006", "2D000"),
    *("XX000", "55P03", "0A000"),
)
FAILURES = [
    *(f"insert into note values (1, '{code}') returning id" for code in CODES),
    *(f"insert into other values (1) returning fails_now('{code}')" for code in CODES),
    "insert into note values (1), (1)",
    "insert into strict values (1, 1, 99) returning *",
    "insert into strict values (1, 0, null)",
    "declare c cursor with hold for select 1 / (random() * 0)::int",
    *(
        "declare __poolkeeper_portal cursor for select 1",
        "fetch all from c",
        "close c",
        "execute mine",
    ),
    *("release a", "rollback to a", "set role postgres", "set transaction isolation level x"),
    *("set local poolkeeper.lease = 'x'", "discard all", "vacuum", "create database x"),
    *("create index concurrently on note (id)", "alter system set work_mem = '1MB'"),
    *("call commits()", "do $$ begin commit; end $$", "do $$ begin rollback; end $$"),
    *("do $$ begin execute 'copy note to stdout'; end $$", "listen x", "prepare transaction 'x'"),
    "select executes('set local poolkeeper.lease = ''x''')",
    *(
        "select executes('commit')",
        "select executes('close __poolkeeper_portal')",
        "select 1; select 2",
    ),
    *("selec", "select 'open", "select $1::int", "select 1/0", "select * from nowhere"),
    "select 1 / g from generate_series(-2, 2) g",
    *("copy note to stdout", "/* */ copy note from stdin", "; copy note from '/nowhere'"),
    *("begin", "commit", "abort and chain", "create role x", "load 'nowhere'"),
]
SUCCESSES = [
    "insert into note values (2, 'x') returning *",
    *("declare c cursor with hold for select 1", "close all", "move all in __poolkeeper_portal"),
    *("prepare mine as insert into note values (3, 'p')", "savepoint a"),
    *("set transaction read only", "set transaction_read_only = on"),
    *("set default_transaction_read_only = on", "set constraints all immediate"),
    *("set client_encoding = 'latin1'", "set client_encoding = 'EUC_TW'"),
    *("set poolkeeper.lease = '2'", "reset all", "set role none"),
    *("set session authorization default", "set search_path = nowhere", "discard plans"),
    *("set statement_timeout = 0", "set timezone = 'Asia/Tokyo'", "discard temp"),
    *("create temp table t as select 1", "truncate note", "lock table note nowait"),
    *("call adds(1)", "do $$ begin execute 'listen x'; perform pg_notify('x', 'y'); end $$"),
    *("notify x, 'y'", "select noisy()", "select executes('close all')"),
    *("select executes('create temp table t ()')", "select executes('listen x')"),
    *("select pg_advisory_lock(1), pg_advisory_xact_lock(2)", ";", "-- nothing", "select 1;"),
    *("select from generate_series(1, 5)", "select null, '', array[1, null], row(1, 'a')"),
    "with w as (insert into note values (5, 'w') returning id) select * from w",
    "insert into note select g, 'x' from generate_series(1, 2000) g returning *",
    "select generate_series(1, 3) into made",
]
LEFT = (
    "select relname, relkind from pg_class where relnamespace = current_schema()::regnamespace",
    "select name from pg_cursors where name = 'c'",
    "select objid from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    "select name, setting from pg_settings where source = 'session'",
    "select relname from pg_class where relpersistence = 't'",
    "select pg_listening_channels()",
    "select current_user = session_user",
    "select (select count(*) from note), (select count(*) from other), count(*) from strict",
)
AT_ONCE, USUAL = "first", "later"


@pytest.fixture
async def manager(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """Two like tenants, each with one connection."""
    async with manager_on(database, configs=OF_ONE) as manager:
        for name in (AT_ONCE, USUAL):
            await provisioned(manager, name)
            async with manager.lease(name) as connection:
                await connection.execute(SETUP)
        yield manager


async def outcome(manager: TenantPoolManager, name: str, sql: str) -> tuple[object, ...]:
    """The result or error that a tenant gets."""
    statement = TextStatement(sql, (), as_arrays=True, raw_text=True, is_alone=name == AT_ONCE)
    try:
        query = Query([statement], timeout=30)
        async with manager.lease(name, statement_timeout=30, work=query) as connection:
            [result] = await query.run(connection)
    except StatementFailed as error:
        return type(error), str(error), error.sqlstate, error.position, error.hint, error.fields
    except PoolkeeperError as error:
        return type(error), str(error)
    rows = json.loads(b"[%b]" % b",".join(result.rows))
    return rows, result.command, result.row_count, [each.name for each in result.fields]


async def left(manager: TenantPoolManager, name: str) -> list[list[str]]:
    """What it has stored, and what is left of its session."""
    async with manager.lease(name) as connection:
        return [sorted(map(str, await connection.fetch(sql))) for sql in LEFT]


@pytest.mark.parametrize("statements", [FAILURES, SUCCESSES], ids=["failures", "successes"])
async def test_its_result_its_failure_and_what_it_leaves_are_the_same(
    manager: TenantPoolManager, statements: list[str]
) -> None:
    for sql in statements:
        first, later = [
            str([await outcome(manager, name, sql), await left(manager, name)]).replace(name, "")
            for name in (AT_ONCE, USUAL)
        ]
        assert first == later, sql
