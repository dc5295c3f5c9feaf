"""Values and statements of the query endpoint: what is returned, and what is refused."""

from typing import Any

import pytest
import pytest_asyncio

from tests.fixtures.app import Api, ok, pointers, problem

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acme(standing_api: Api) -> str:
    """The URL of a tenant that has types of its own."""
    url = await standing_api.tenant("acme")
    for statement in (
        "create type pair as (number int, names text[])",
        "create type mood as enum ('happy')",
        "create type textrange as range (subtype = text)",
    ):
        ok(await standing_api.query(url, statement, read_only=False))
    return url


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("true", True),
        ("path '[(0,0.1),(2,3)]'", "[(0,0.1),(2,3)]"),
        ("polygon '((0,0),(1,1))'", "((0,0),(1,1))"),
        ("9223372036854775807", 2**63 - 1),
        ("1.5::float8", 1.5),
        ("'NaN'::float8", "NaN"),
        ("'-Infinity'::float4", "-Infinity"),
        ("1.50::numeric", "1.50"),
        ("1e5::numeric", "100000"),
        ("'NaN'::numeric", "NaN"),
        ("'2026-11-20'::date", "2026-11-20"),
        ("'9999-12-31'::date", "9999-12-31"),
        ("'infinity'::date", "infinity"),
        ("'12:30'::time", "12:30:00"),
        ("'2026-11-20 12:00+02'::timestamptz", "2026-11-20T10:00:00Z"),
        ("'2026-11-20 12:00'::timestamp", "2026-11-20T12:00:00"),
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::timestamp", "-infinity"),
        ("'1 day 02:03:04.5'::interval", "P1DT2H3M4.5S"),
        ("'-1 day -00:00:01'::interval", "P-1DT-1S"),
        ("'\\x00ff'::bytea", "\\x00ff"),
        ("'a'::\"char\"", "a"),
        ("'10.1.0.0/16'::cidr", "10.1.0.0/16"),
        ("'6a9f3f3e-8a70-4c5e-9d47-0b2c3d4e5f60'::uuid", "6a9f3f3e-8a70-4c5e-9d47-0b2c3d4e5f60"),
        ("b'10110011101'", "10110011101"),
        ("int4range(1, 5)", "[1,5)"),
        ("int4range(5, 5)", "empty"),
        ("numrange(null, 2.5, '(]')", "(,2.5]"),
        ("tsrange('2026-11-20', null)", "[2026-11-20T00:00:00,)"),
        ('\'["a,b","c\\\\""d"]\'::textrange', '["a,b","c\\\\""d"]'),
        ("'{[1,2),[5,6)}'::int4multirange", ["[1,2)", "[5,6)"]),
        ("array[[1, 2], [3, null]]", [[1, 2], [3, None]]),
        ("array[1.5::numeric]", ["1.5"]),
        ("'{\"a\": [1, 1.5, 1e999, null]}'::jsonb", {"a": [1, 1.5, 10**999, None]}),
        ("'1.5e999'::json", "1.5e999"),
        ("'\"\\ud800\"'::json", '"\\ud800"'),
        ('\'{"a": [{"\\ud800": 1}]}\'::json', '{"a": [{"\\ud800": 1}]}'),
        ("'\"\\ud83d\\ude00\"'::json", "\U0001f600"),
        ("array['{\"a\": 1}'::jsonb]", [{"a": 1}]),
        ("(repeat('[', 200) || repeat(']', 200))::jsonb", "[" * 200 + "]" * 200),
        ("(repeat('[', 3000) || repeat(']', 3000))::json", "[" * 3000 + "]" * 3000),
        ("repeat('9', 5000)::json", "9" * 5000),
        ("row(1, 'x')", [1, "x"]),
        ("row(''::oidvector, ''::int2vector, '1 2'::int2vector)", [[], [], [1, 2]]),
        ("row(1, array['x'])::pair", {"number": 1, "names": ["x"]}),
        ("point(1, 'nan')", [1.0, "NaN"]),
        ("'happy'::mood", "happy"),
    ],
)
async def test_every_type_has_its_json(
    standing_api: Api, acme: str, sql: str, shown: object
) -> None:
    assert await standing_api.value(acme, f"select {sql}") == shown


async def test_a_record_shows_a_value_that_its_domain_would_refuse_by_now(
    standing_api: Api, acme: str
) -> None:
    for sql in (
        "create domain positive as int",
        "create table stored (n positive)",
        "insert into stored values (-1)",
        "alter domain positive add check (value > 0) not valid",
    ):
        ok(await standing_api.query(acme, sql, read_only=False))
    assert await standing_api.value(acme, "select row(n) from stored") == [-1]


@pytest.mark.parametrize(
    ("kind", "given", "shown"),
    [
        ("int", 5, 5),
        ("int", "5", 5),
        ("numeric", "1.50", "1.50"),
        ("numeric", 2, "2"),
        ("date", "2026-11-20", "2026-11-20"),
        ("interval", "P-1DT-2H", "P-1DT-2H"),
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
    standing_api: Api, acme: str, kind: str, given: object, shown: object
) -> None:
    assert await standing_api.value(acme, f"select $1::{kind}", given) == shown


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
async def test_an_error_of_postgres_has_its_sqlstate(
    standing_api: Api, acme: str, sql: str, params: list[Any], sqlstate: str
) -> None:
    details = problem(await standing_api.query(acme, sql, *params), 422, "statement-failed")
    assert details["sqlstate"] == sqlstate
    assert await standing_api.value(acme, "select 1") == 1


@pytest.mark.parametrize(
    ("sql", "params", "detail"),
    [
        (
            "select $1::text, $2::int4[]",
            ["a", 7],
            "Parameter $2: A number does not fit type int4[]; give it as a string.",
        ),
        (
            "select $1::jsonb, $2::text",
            [7, ["x"]],
            "Parameter $2: An array does not fit type text; give it as a string.",
        ),
    ],
)
async def test_a_value_that_does_not_fit_names_its_parameter(
    standing_api: Api, acme: str, sql: str, params: list[Any], detail: str
) -> None:
    for _ in range(2):  # its types are known the second time
        details = problem(await standing_api.query(acme, sql, *params), 422, "statement-failed")
        assert details["detail"] == detail


@pytest.mark.parametrize(
    ("value", "table"),
    [
        ("c.relacl", "pg_class c where relacl is not null limit 1"),
        ("makeaclitem(10, 10, 'select', false)", "pg_class limit 1"),
        ("ev_action", "pg_rewrite limit 1"),
        ("histogram_bounds", "pg_stats where histogram_bounds is not null limit 1"),
    ],
)
async def test_a_record_says_how_to_return_what_has_no_binary_form(
    standing_api: Api, acme: str, value: str, table: str
) -> None:
    failed = await standing_api.query(acme, f"select row({value}) from {table}")
    details = problem(failed, 422, "statement-failed")
    assert details["hint"] == "A record without a type cannot contain it: cast it to text."
    cast = await standing_api.query(acme, f"select row({value}::text) from {table}")
    assert isinstance(ok(cast)["rows"][0][0][0], str)


async def test_a_value_that_postgres_refuses_names_its_parameter(
    standing_api: Api, acme: str
) -> None:
    if int(str(await standing_api.value(acme, "show server_version_num"))) < 16_00_00:
        pytest.skip("Postgres tells since version 16.")
    sql = "select $1::text, $2::timestamptz, $3::date"
    for params, hint in (
        (["$7", "nowish", None], "The value of $2 was refused."),
        (["$7", None, "2020-13-30"], "The value of $3 was refused. Perhaps"),
    ):
        details = problem(await standing_api.query(acme, sql, *params), 422, "statement-failed")
        assert details["hint"].startswith(hint)
    failed = await standing_api.query(acme, "select 1 / $1::int", 0)
    assert "hint" not in problem(failed, 422, "statement-failed")


async def test_a_syntax_error_has_its_position(standing_api: Api, acme: str) -> None:
    details = problem(await standing_api.query(acme, "select 1 frm x y"), 422, "statement-failed")
    assert (details["sqlstate"], details["position"]) == ("42601", 14)


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
    standing_api: Api, acme: str, kind: str, given: object
) -> None:
    problem(await standing_api.query(acme, f"select $1::{kind}", given), 422, "statement-failed")


@pytest.mark.parametrize("sql", ["commit", "rollback", "end", "abort"])
async def test_a_statement_cannot_end_its_lease(standing_api: Api, acme: str, sql: str) -> None:
    problem(await standing_api.query(acme, sql), 422, "statement-ended-lease")
    assert await standing_api.value(acme, "select 1") == 1


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
    standing_api: Api, acme: str, body: dict[str, Any], place: str
) -> None:
    assert pointers(await standing_api.client.post(f"{acme}/query", json=body)) == [place]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"sql": "x" * 100_001}, "Must have 100000 characters or fewer."),
        ({"sql": "select 1", "params": [0] * 1001}, "Must have 1000 items or fewer."),
        (
            {"sql": "select 1", "timeout_seconds": 1e9},
            "Must be 30 or less, the setting POOLKEEPER_QUERY_TIMEOUT_SECONDS.",
        ),
        (
            {"sql": "select 1", "max_rows": 2000},
            "Must be 1000 or less, the setting POOLKEEPER_QUERY_MAX_ROWS.",
        ),
    ],
)
async def test_a_limit_is_named_in_its_unit(
    standing_api: Api, acme: str, body: dict[str, Any], detail: str
) -> None:
    refused = await standing_api.client.post(f"{acme}/query", json=body)
    [error] = problem(refused, 422, "validation-failed")["errors"]
    assert error["detail"] == detail
