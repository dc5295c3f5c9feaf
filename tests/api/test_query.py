"""One statement as a tenant, over HTTP."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.domain.pool import PoolState
from tests.fixtures.app import Api, ok, pointers, problem, serving
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


@pytest.fixture
async def acme(api: Api) -> str:
    """The URL of a provisioned tenant."""
    return await api.tenant("acme")


async def test_rows_are_arrays_under_named_and_typed_columns(api: Api, acme: str) -> None:
    result = ok(await api.query(acme, "select 1 as a, 'x' as a, null::date as b"))
    assert result["columns"] == [
        {"name": "a", "type": "int4"},
        {"name": "a", "type": "text"},
        {"name": "b", "type": "date"},
    ]
    assert result["rows"] == [[1, "x", None]]
    assert (result["row_count"], result["truncated"], result["status"]) == (1, False, None)
    assert result["duration_ms"] >= 0


async def test_only_so_many_rows_come_back_as_asked(api: Api, acme: str) -> None:
    result = ok(await api.query(acme, "select generate_series(1, 10)", max_rows=3))
    assert (result["rows"], result["row_count"]) == ([[1], [2], [3]], 3)
    assert result["truncated"] is True
    result = ok(await api.query(acme, "select generate_series(1, 3)", max_rows=3))
    assert (result["row_count"], result["truncated"]) == (3, False)


async def test_a_write_must_be_meant(api: Api, acme: str) -> None:
    problem(await api.query(acme, "create table notes (text text)"), 403, "read-only")
    ok(await api.query(acme, "create table notes (text text)", read_only=False))
    insert = "insert into notes select generate_series(1, 3)"
    problem(await api.query(acme, insert), 403, "read-only")
    result = ok(await api.query(acme, insert, read_only=False))
    assert (result["status"], result["row_count"], result["columns"]) == ("INSERT 0 3", 3, [])
    assert await api.value(acme, "select count(*) from notes") == 3


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("true", True),
        ("9223372036854775807", 2**63 - 1),
        ("1.5::float8", 1.5),
        ("'NaN'::float8", "NaN"),
        ("'-Infinity'::float4", "-Infinity"),
        ("1.50::numeric", "1.50"),
        ("1e5::numeric", "100000"),
        ("'NaN'::numeric", "NaN"),
        ("'2026-11-20'::date", "2026-11-20"),
        ("'12:30'::time", "12:30:00"),
        ("'2026-11-20 12:00+02'::timestamptz", "2026-11-20T10:00:00Z"),
        ("'2026-11-20 12:00'::timestamp", "2026-11-20T12:00:00"),
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::timestamp", "-infinity"),
        ("'1 day 02:03:04.5'::interval", "P1DT2H3M4.5S"),
        ("'-1 day -00:00:01'::interval", "P-1DT-0H-0M-1S"),
        ("'\\x00ff'::bytea", "\\x00ff"),
        ("'a'::\"char\"", "a"),
        ("'10.1.0.0/16'::cidr", "10.1.0.0/16"),
        ("'6a9f3f3e-8a70-4c5e-9d47-0b2c3d4e5f60'::uuid", "6a9f3f3e-8a70-4c5e-9d47-0b2c3d4e5f60"),
        ("b'10110011101'", "10110011101"),
        ("int4range(1, 5)", "[1,5)"),
        ("int4range(5, 5)", "empty"),
        ("numrange(null, 2.5, '(]')", "(,2.5]"),
        ("tsrange('2026-11-20', null)", "[2026-11-20T00:00:00,)"),
        ("'[\"a,b\",\"c\\\\\"\"d\"]'::textrange", '["a,b","c\\"d"]'),
        ("'{[1,2),[5,6)}'::int4multirange", ["[1,2)", "[5,6)"]),
        ("array[[1, 2], [3, null]]", [[1, 2], [3, None]]),
        ("array[1.5::numeric]", ["1.5"]),
        ('\'{"a": [1, 1.5, 1e999, null]}\'::jsonb', {"a": [1, 1.5, 10**999, None]}),
        ("'1.5e999'::json", "1.5e999"),
        ("array['{\"a\": 1}'::jsonb]", [{"a": 1}]),
        ("(repeat('[', 200) || repeat(']', 200))::jsonb", "[" * 200 + "]" * 200),
        ("(repeat('[', 3000) || repeat(']', 3000))::json", "[" * 3000 + "]" * 3000),
        ("repeat('9', 5000)::json", "9" * 5000),
        ("row(1, 'x')", [1, "x"]),
        ("row(1, array['x'])::pair", {"number": 1, "names": ["x"]}),
        ("point(1, 'nan')", [1.0, "NaN"]),
        ("'happy'::mood", "happy"),
    ],
)
async def test_every_type_has_its_json(api: Api, acme: str, sql: str, shown: object) -> None:
    for statement in (
        "create type pair as (number int, names text[])",
        "create type mood as enum ('happy')",
        "create type textrange as range (subtype = text)",
    ):
        ok(await api.query(acme, statement, read_only=False))
    assert await api.value(acme, f"select {sql}") == shown


@pytest.mark.parametrize(
    ("kind", "given", "shown"),
    [
        ("int", 5, 5),
        ("int", "5", 5),
        ("numeric", "1.50", "1.50"),
        ("numeric", 2, "2"),
        ("date", "2026-11-20", "2026-11-20"),
        ("interval", "P-1DT-2H", "P-1DT-2H-0M-0S"),
        ("bytea", "\\x00ff", "\\x00ff"),
        ("jsonb", {"a": ["x", None]}, {"a": ["x", None]}),
        ("jsonb", "text", "text"),
        ("int[]", [1, None], [1, None]),
        ("int[]", "{1,2}", [1, 2]),
        ("int4range", "[1,5)", "[1,5)"),
        ("text", "'; drop table x; --", "'; drop table x; --"),
        ("text", "\u202eé", "\u202eé"),
        ("uuid", None, None),
    ],
)
async def test_a_string_binds_to_any_type_through_its_text(
    api: Api, acme: str, kind: str, given: object, shown: object
) -> None:
    assert await api.value(acme, f"select $1::{kind}", given) == shown


@pytest.mark.parametrize(
    ("sql", "params", "sqlstate"),
    [
        ("select 1 / 0", [], "22012"),
        ("select * from nowhere", [], "42P01"),
        ("select 1; select 2", [], "42601"),
        ("vacuum", [], "25001"),
        ("select $1::int", [], "08P01"),
        ("select 1", [1], "08P01"),
        ("select $1::int", ["x"], "22P02"),
        ("select $1::int[]", ["{"], "22P02"),
        ("set role postgres", [], "42501"),
        ("copy (select 1) to stdout", [], "0A000"),
        ("call nothing()", [], "42883"),
    ],
)
async def test_what_postgres_refuses_is_told_with_its_sqlstate(
    api: Api, acme: str, sql: str, params: list[Any], sqlstate: str
) -> None:
    told = problem(await api.query(acme, sql, *params), 422, "statement-failed")
    assert told["sqlstate"] == sqlstate
    assert await api.value(acme, "select 1") == 1


async def test_a_syntax_error_tells_where(api: Api, acme: str) -> None:
    told = problem(await api.query(acme, "select 1 frm x y"), 422, "statement-failed")
    assert (told["sqlstate"], told["position"]) == ("42601", 16)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("int", 2**31),
        ("int", 2**70),
        ("int", 10**400),
        ("int", 1.5),
        ("int", [1]),
        ("int", {"a": 1}),
        ("text", 5),
        ("text", [1]),
        ("int[]", 1),
        ("int[]", ["x"]),
        ("int[]", [[1], [2, 3]]),
        ("date", 5),
        ("uuid", True),
        ("bytea", 1),
        ("numeric", [1, 2]),
    ],
)
async def test_a_parameter_that_does_not_fit_is_refused(
    api: Api, acme: str, kind: str, given: object
) -> None:
    problem(await api.query(acme, f"select $1::{kind}", given), 422, "statement-failed")


@pytest.mark.parametrize("sql", ["commit", "rollback", "end", "abort"])
async def test_a_statement_cannot_end_its_lease(api: Api, acme: str, sql: str) -> None:
    problem(await api.query(acme, sql), 422, "statement-ended-lease")
    assert await api.value(acme, "select 1") == 1


async def test_a_statement_that_runs_into_its_timeout_is_cancelled(api: Api, acme: str) -> None:
    sleepy = "do $$ begin perform pg_sleep(60); end $$"
    for sql in ("select pg_sleep(60)", sleepy):
        told = problem(await api.query(acme, sql, timeout_seconds=0.05), 504, "query-timeout")
        assert "0.05" in told["detail"]
    assert await api.value(acme, "select 1") == 1


async def test_no_free_connection_within_the_deadline_is_told_with_retry_after(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    async with serving(
        database, catalog_database, tmp_path, acquire_timeout_seconds=0.1, max_waiting=1
    ) as api:
        url = await api.tenant("acme")
        await api.client.put(f"{url}/pool", json={"max_size": 1})
        async with api.service.manager.lease("acme"):
            waiting = asyncio.create_task(api.query(url, "select 1"), name="a query")
            [pool] = api.service.manager.pools()
            await eventually(lambda: pool.metrics.waiting_requests == 1)
            problem(await api.query(url, "select 1"), 503, "pool-saturated")
            refused = await waiting
            problem(refused, 503, "pool-timeout")
            assert refused.headers["retry-after"] == "1"
        assert pool.state is PoolState.READY
        assert await api.value(url, "select 1") == 1


async def test_a_connection_cut_under_a_statement_is_replaced_for_the_next(
    api: Api, acme: str
) -> None:
    suicide = "select pg_terminate_backend(pg_backend_pid())"
    problem(await api.query(acme, suicide), 503, "lease-lost")
    assert await api.value(acme, "select 1") == 1


async def test_free_sql_on_a_shared_role_is_refused_where_it_is_not_allowed(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    async with serving(database, catalog_database, tmp_path, query_on_shared=False) as api:
        shared, own = await api.tenant("acme", "shared"), await api.tenant("beta")
        problem(await api.query(shared, "select 1"), 422, "untrusted-sql-on-shared-role")
        assert await api.value(own, "select 1") == 1
        told = ok(await api.client.get(shared))
        assert (told["query_allowed"], "local" in told["query_refusal"]) == (False, True)
        told = ok(await api.client.get(own))
        assert (told["query_allowed"], told["query_refusal"]) == (True, None)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "/body/sql"),
        ({"sql": ""}, "/body/sql"),
        ({"sql": 1}, "/body/sql"),
        ({"sql": None}, "/body/sql"),
        ({"sql": "select 1\0"}, "/body/sql"),
        ({"sql": "x" * 100_001}, "/body/sql"),
        ({"sql": "select 1", "sequel": 1}, "/body/sequel"),
        ({"sql": "select 1", "a/b~c": 1}, "/body/a~1b~0c"),
        ({"sql": "select 1", "params": {}}, "/body/params"),
        ({"sql": "select 1", "params": [0] * 1001}, "/body/params"),
        ({"sql": "select 1", "params": [1, "\0"]}, "/body/params/1"),
        ({"sql": "select 1", "params": [{"a": [{"\0": 1}]}]}, "/body/params/0"),
        ({"sql": "select 1", "read_only": "false"}, "/body/read_only"),
        ({"sql": "select 1", "read_only": 0}, "/body/read_only"),
        ({"sql": "select 1", "timeout_seconds": 0}, "/body/timeout_seconds"),
        ({"sql": "select 1", "timeout_seconds": -1}, "/body/timeout_seconds"),
        ({"sql": "select 1", "timeout_seconds": 31}, "/body/timeout_seconds"),
        ({"sql": "select 1", "timeout_seconds": "1"}, "/body/timeout_seconds"),
        ({"sql": "select 1", "timeout_seconds": True}, "/body/timeout_seconds"),
        ({"sql": "select 1", "timeout_seconds": 10**400}, "/body/timeout_seconds"),
        ({"sql": "select 1", "max_rows": 0}, "/body/max_rows"),
        ({"sql": "select 1", "max_rows": 1001}, "/body/max_rows"),
        ({"sql": "select 1", "max_rows": 10**400}, "/body/max_rows"),
    ],
)
async def test_a_request_that_does_not_fit_is_refused_with_its_place(
    api: Api, acme: str, body: dict[str, Any], place: str
) -> None:
    assert pointers(await api.client.post(f"{acme}/query", json=body)) == [place]
