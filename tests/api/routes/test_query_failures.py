"""Why a statement failed, and what the next one does then."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio

from tests.fixtures.app import Api, ok, problem
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

RAISED = ["57014", "57P01", "08006", "25006", "22012", "25P02", "XX000"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acme(standing_api: Api) -> str:
    """The URL of a provisioned tenant."""
    return await standing_api.tenant("acme")


async def test_a_statement_that_somebody_cancels_did_not_time_out(
    standing_api: Api, acme: str
) -> None:
    sleeping = asyncio.create_task(standing_api.query(acme, "select pg_sleep(30)"), name="a query")
    cancel = (
        "select pg_cancel_backend(pid) from pg_stat_activity where usename = current_user"
        " and pid <> pg_backend_pid() and wait_event = 'PgSleep'"
    )
    while not sleeping.done():
        ok(await standing_api.query(acme, cancel))
    details = problem(await sleeping, 422, "statement-failed")
    assert (details["sqlstate"], "user request" in details["detail"]) == ("57014", True)


@pytest.mark.parametrize("sqlstate", RAISED)
@pytest.mark.parametrize("when", ["at once", "at the commit"])
async def test_errors_raised_by_tenants_code_are_passed_on(
    standing_api: Api, acme: str, sqlstate: str, when: str
) -> None:
    message = "cache lookup failed in my own code"
    raising = f"raise exception '{message}' using errcode = '{sqlstate}'"
    sql = f"do $$ begin {raising}; end $$"
    if when == "at the commit":
        body = f"$$ begin {raising}; end $$"
        deferred = "deferrable initially deferred for each row execute function no()"
        for statement in (
            "drop table if exists deferred",
            "create table deferred (id int)",
            f"create or replace function no() returns trigger language plpgsql as {body}",
            f"create constraint trigger no after insert on deferred {deferred}",
        ):
            ok(await standing_api.query(acme, statement, read_only=False))
        sql = "insert into deferred values (1)"
    details = problem(await standing_api.query(acme, sql, read_only=False), 422, "statement-failed")
    assert (details["sqlstate"], details["detail"]) == (sqlstate, message)
    assert await standing_api.value(acme, "select 1") == 1


async def test_a_deferred_constraint_is_reported_as_itself(standing_api: Api, acme: str) -> None:
    for statement in (
        "create table parent (id int primary key)",
        "create table child (id int references parent deferrable initially deferred)",
    ):
        ok(await standing_api.query(acme, statement, read_only=False))
    response = await standing_api.query(acme, "insert into child values (1)", read_only=False)
    assert problem(response, 422, "statement-failed")["sqlstate"] == "23503"


async def test_a_violated_constraint_is_named_with_its_table_and_its_values(
    standing_api: Api, acme: str
) -> None:
    ok(
        await standing_api.query(
            acme,
            "create table people (email text unique, age int check (age > 0), name text not null)",
            read_only=False,
        )
    )
    insert = "insert into people values ($1, $2, $3)"
    ok(await standing_api.query(acme, insert, "ann", 1, "Ann", read_only=False))
    names = ("schema_name", "table_name", "column_name", "data_type_name", "constraint_name")
    for values, sqlstate, column, constraint in (
        (("ann", 2, "Ann"), "23505", None, "people_email_key"),
        (("bob", 0, "Bob"), "23514", None, "people_age_check"),
        (("bob", 2, None), "23502", "name", None),
    ):
        response = await standing_api.query(acme, insert, *values, read_only=False)
        details = problem(response, 422, "statement-failed")
        assert details["sqlstate"] == sqlstate
        assert [details.get(name) for name in names] == [
            *("tenant_acme", "people", column, None, constraint)
        ]
        assert str(values[0]) in details["message_detail"]
    [refusal, *_] = ok(await standing_api.client.get("/v1/refusals"))["items"]
    assert refusal["detail"] == "SQLSTATE 23502"


async def test_a_field_of_an_error_has_a_limit(standing_api: Api, acme: str) -> None:
    long = "repeat('x', 10000)"
    raising = f"raise exception 'long' using detail = {long}, table = {long}, constraint = {long}"
    response = await standing_api.query(acme, f"do $$ begin {raising}; end $$")
    details = problem(response, 422, "statement-failed")
    for name in ("message_detail", "table_name", "constraint_name"):
        assert 1000 < len(details[name]) <= 4000


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "53200", "55P03"])
async def test_a_conflict_with_another_transaction_is_worth_a_retry(
    standing_api: Api, acme: str, sqlstate: str
) -> None:
    raising = f"do $$ begin raise exception 'in the way' using errcode = '{sqlstate}'; end $$"
    details = problem(await standing_api.query(acme, raising), 409, "statement-conflict")
    assert (details["sqlstate"], details["retryable"]) == (sqlstate, True)


async def test_the_victim_of_a_deadlock_can_retry(standing_api: Api, acme: str) -> None:
    for statement in (
        "create table rows (id int primary key, n int)",
        "insert into rows values (1, 0), (2, 0)",
    ):
        ok(await standing_api.query(acme, statement, read_only=False))

    async def crossing(first: int, second: int) -> int:
        update = "update rows set n = n + 1 where id = "
        sql = f"do $$ begin {update}{first}; perform pg_sleep(0.5); {update}{second}; end $$"
        return (await standing_api.query(acme, sql, read_only=False)).status_code

    answers = await asyncio.gather(crossing(1, 2), crossing(2, 1))
    assert sorted(answers) == [200, 409]


async def test_types_that_ddl_changed_are_read_as_they_are_now(
    standing_api: Api, acme: str
) -> None:
    read = "select orders, array[orders], (select p from pairs p) from orders"
    for statement in (
        "create table orders (id int)",
        "create type pair as (a int)",
        "create table pairs (p pair)",
        "insert into orders values (1)",
    ):
        ok(await standing_api.query(acme, statement, read_only=False))
    for number in range(3):
        ok(await standing_api.query(acme, read))
        change = f"alter table orders add column c{number} int default {number}"
        ok(await standing_api.query(acme, change, read_only=False))
        ok(
            await standing_api.query(
                acme, f"alter type pair add attribute b{number} int", read_only=False
            )
        )
        shown = await standing_api.value(acme, read)
        assert shown == {"id": 1} | {f"c{each}": each for each in range(number + 1)}
    ok(await standing_api.query(acme, "alter table orders alter id type text", read_only=False))
    assert (await standing_api.value(acme, "select (orders).id from orders")) == "1"


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_read_meets_ddl_between_its_look_up_and_its_rows_and_is_repeated(
    standing_api: Api, acme: str, *, read_only: bool
) -> None:
    for statement in (
        "drop table if exists held; drop type if exists holding",
        "create type holding as (a int)",
        "create table held (h holding)",
        "insert into held values (row(1))",
    ):
        for part in statement.split("; "):
            ok(await standing_api.query(acme, part, read_only=False))
    manager = standing_api.service.manager
    read = "select h from held, (select pg_advisory_xact_lock_shared(12)) locked"
    waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    async with manager.lease("acme") as other:
        await other.execute("select pg_advisory_xact_lock(12)")
        asked = asyncio.create_task(
            standing_api.query(acme, read, read_only=read_only), name="a query that waits"
        )

        async def is_waiting() -> bool:
            return bool(await other.fetchval(waits))

        # By then its members have been looked up.
        await eventually(is_waiting)
        await other.execute("alter type holding add attribute b int")
    response = await asked
    if read_only:
        assert ok(response)["rows"] == [[{"a": 1, "b": None}]]
    else:
        assert problem(response, 503, "schema-changed")["retryable"]


async def test_a_nesting_without_end_is_refused_by_name(standing_api: Api, acme: str) -> None:
    nested = "".join(f"create type n{each} as (inside n{each - 1}); " for each in range(1, 400))
    sql = f"do $do$ begin create type n0 as (leaf int); {nested} end $do$"
    ok(await standing_api.query(acme, sql, read_only=False))
    for asked, params in (("null::n399", []), ("$1::n399 is null", [None])):
        response = await standing_api.query(acme, f"select {asked}", *params)
        assert "nested more than" in problem(response, 422, "statement-failed")["detail"]
    row = "row(" * 50 + "1" + ")" * 50
    response = await standing_api.query(acme, f"select {row}")
    assert "nested more than" in problem(response, 422, "statement-failed")["detail"]


async def test_rows_without_columns_are_limited(standing_api: Api, acme: str) -> None:
    many = "with recursive n as (select 1 as i union all select i + 1 from n) select from n"
    result = ok(await standing_api.query(acme, many, max_rows=7))
    assert (result["row_count"], result["truncated"], result["rows"]) == (7, True, [[]] * 7)


@pytest.mark.parametrize("disguise", ["", "--x\r", "/* /* */ */", ";", "\f\v"])
async def test_copy_is_refused_in_every_disguise(
    standing_api: Api, acme: str, disguise: str
) -> None:
    ok(await standing_api.query(acme, "create table if not exists cc (a int)", read_only=False))
    for copy in ("copy cc from stdin", "copy (select generate_series(1, 1e7)) to stdout"):
        response = await standing_api.query(acme, disguise + copy, read_only=False)
        assert problem(response, 422, "statement-failed")["detail"] == "COPY is not supported here."
    assert await standing_api.value(acme, "select count(*) from cc") == 0


async def test_numbers_of_the_request_keep_their_digits(standing_api: Api, acme: str) -> None:
    body = '{"sql": "select $1::numeric, $2::json::text, $3::int", "params": [%s, [%s], 7]}'
    digits = "0.1000000000000000000000000001"
    response = await standing_api.client.post(
        f"{acme}/query",
        content=body % (digits, digits),
        headers={"Content-Type": "application/json"},
    )
    assert ok(response)["rows"] == [[digits, f"[{digits}]", 7]]
    response = await standing_api.query(acme, "select $1::int", 7.5)
    assert problem(response, 422, "statement-failed")["sqlstate"] == "22P02"


@pytest.mark.parametrize(
    ("kind", "given", "shown"),
    [
        ("float8", "-0", "-0"),
        ("float8", "-0.0", "-0"),
        ("float4", "-0 ", "-0"),
        ("float8[]", "[0, -0, 0.50, -0]", "{0,-0,0.5,-0}"),
        ("point", "[-0, 1]", "(-0,1)"),
        ("int", "-0", "0"),
        ("xid8", "-0", "0"),
        ("numeric", "-0", "0"),
        ("jsonb", '{"a": -0}', '{"a": 0}'),
        ("json", '{"a": -0, "b": [10, 1.50]}', '{"a":-0,"b":[10,1.50]}'),
        ("text[]", '["-0, -0]", "1e-0"]', '{"-0, -0]",1e-0}'),
    ],
)
async def test_a_negative_zero_keeps_its_sign_where_it_has_one(
    standing_api: Api, acme: str, kind: str, given: str, shown: str
) -> None:
    # The second one makes the body a long one.
    for more in ("", "-" * 70_000):
        response = await standing_api.client.post(
            f"{acme}/query",
            content=f'{{"sql": "select $1::{kind}::text /*{more}*/", "params": [{given}]}}',
            headers={"Content-Type": "application/json"},
        )
        assert ok(response)["rows"] == [[shown]]


async def test_a_borrower_of_a_lease_gets_python_values_after_every_statement(
    standing_api: Api,
) -> None:
    # Its connection is the only one; other tests need more.
    narrow = await standing_api.tenant("narrow")
    await standing_api.client.put(f"{narrow}/pool", json={"max_size": 1})
    for number in range(200):
        assert await standing_api.value(narrow, "select $1::numeric", number) == str(number)
        async with standing_api.service.manager.lease("narrow") as connection:
            values = await connection.fetchrow("select 1.5::numeric, now(), interval '1 day'")
        assert [type(each) for each in values or ()] == [Decimal, datetime, timedelta]


async def test_what_ran_before_runs_by_the_types_that_there_are_now(
    standing_api: Api, acme: str
) -> None:
    write = "insert into retyped values ($1) returning v"
    for kind in ("text", "json"):
        for statement in ("drop table if exists retyped", f"create table retyped (v {kind})"):
            ok(await standing_api.query(acme, statement, read_only=False))
        for _ in range(2):
            assert await standing_api.value(acme, write, "7", read_only=False) == "7"
        rows = ok(await standing_api.query(acme, "select v from retyped"))["rows"]
        assert rows == [["7"], ["7"]]


async def test_a_batch_meets_its_own_ddl_each_time(standing_api: Api, acme: str) -> None:
    ok(await standing_api.query(acme, "create table changed (v int)", read_only=False))
    ok(await standing_api.query(acme, "insert into changed values (7)", read_only=False))
    for kind, shown in (("text", "7"), ("int", 7)) * 2:
        change = f"alter table changed alter v type {kind} using v::{kind}"
        statements = [{"sql": sql} for sql in ("select v from changed", change)]
        response = await standing_api.client.post(
            f"{acme}/query",
            json={"statements": [*statements, statements[0]], "read_only": False},
        )
        assert ok(response)["results"][2]["rows"] == [[shown]]
