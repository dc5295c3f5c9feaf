"""POST /sql as Neon's driver uses it: values, transactions, errors, and who may use it."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
from structlog.testing import capture_logs

from app.domain.application_credential import ApplicationCredential
from app.domain.scram import scram_verifier
from app.domain.tenant import TenantId
from tests.fixtures.app import Api, ok
from tests.fixtures.driver import Driver, driver_for, error

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- results ---------------------------------------------------------------------------------


async def test_a_statement_has_fields_rows_command_and_count(driver: Driver) -> None:
    await driver.ask("create table if not exists seen (id int, name varchar(7))")
    computed = {"tableID": 0, "columnID": 0, "dataTypeModifier": -1, "format": "text"}
    result = ok(await driver.ask("select name, 1::int8 as n from (values ($1)) v(name)", "x"))
    assert result == {
        "fields": [
            {"name": "name", "dataTypeID": 25, "dataTypeSize": -1, **computed},
            {"name": "n", "dataTypeID": 20, "dataTypeSize": 8, **computed},
        ],
        "rows": [["x", "1"]],
        "command": "SELECT",
        "rowCount": 1,
        "rowAsArray": True,
    }
    _, column = ok(await driver.ask("select * from seen"))["fields"]
    assert column["tableID"] > 0
    assert (column["columnID"], column["dataTypeID"], column["dataTypeModifier"]) == (2, 1043, 11)


# What every type's own output function writes, and NULL.
EXPRESSIONS = [
    "7::int2",
    "9007199254740993::int8",
    "1.10::numeric",
    "0.1::float4 / 3",
    "'-Infinity'::float8",
    "true",
    "null::int",
    "'é 🐘 \"\\'",
    "E'\\t\\x01\\n'",
    "'\\x00ff'::bytea",
    "'2026-11-20T10:00:00.5+01'::timestamptz",
    "'0044-03-15 BC'::date",
    "'1 year 2 mons -3 days 04:05:06.5'::interval",
    """'{"b": 1.0, "a": [null, "x"]}'::json""",
    """'{"b": 1.0, "a": [null, "x"]}'::jsonb""",
    "'[0:1]={1,null}'::int[]",
    """array['a', 'b"\\,', 'NULL', null, '']""",
    "'{{1,2},{3,4}}'::int[]",
    "int4range(1, 5)",
    "'{[1,2),[4,5)}'::int4multirange",
    "'(1,2)'::point",
    "row(1, 'x y', null)",
    "array[row(1, 'x')]",
    "'pg_class'::regclass",
    "'1.2.3.0/24'::cidr",
    "b'101'",
    "$money$1.50$money$::money",
    "repeat('x', 100000)",
]


async def test_raw_text_is_what_postgres_writes(driver: Driver) -> None:
    for expression in EXPRESSIONS:
        # format writes what a type's output function writes.
        [[value, text]] = await driver.rows(
            f"select {expression}, nullif(format('%s', {expression}), '')"
        )
        assert value == text, expression


async def test_without_raw_text_values_are_what_json_has(driver: Driver) -> None:
    for expression, value in (
        ("true", True),
        ("7::int2", 7),
        ("7", 7),
        ("7::int8", "7"),
        ("1.5::float8", 1.5),
        ("'NaN'::float8", "NaN"),
        ("1.50::numeric", "1.50"),
        ("""'{"a": [1, null]}'::jsonb""", {"a": [1, None]}),
        ("'{1,null}'::int[]", [1, None]),
        ("'{{1.5}}'::numeric[]", [["1.5"]]),
        ("""array['{"a": 1}'::jsonb]""", [{"a": 1}]),
        ("'2026-11-20T09:00:00Z'::timestamptz at time zone 'UTC'", "2026-11-20 09:00:00"),
        ("array['2026-11-20'::date]", ["2026-11-20"]),
        ("'1 day'::interval", "1 day"),
        ("row(1, 'x')", "(1,x)"),
        ("array[row(1, 'x'), null]", ["(1,x)", None]),
        ("'(1,2)'::point", "(1,2)"),
        ("null", None),
    ):
        rows = await driver.rows(f"select {expression} as v", Raw_Text_Output="false")
        assert rows == [[value]], expression


async def test_rows_are_objects_without_array_mode(driver: Driver) -> None:
    query = 'select 1 as a, null as "b""c", repeat(\'x\', 9999) as d'
    result = ok(await driver.ask(query, Array_Mode="false"))
    assert result["rows"] == [{"a": "1", 'b"c': None, "d": "x" * 9999}]
    assert result["rowAsArray"] is False
    assert await driver.rows("select", Array_Mode="false") == [{}]
    assert await driver.rows("select") == [[]]
    for raw in ("true", "false"):
        for mode in ("true", "false"):
            how = {"Array_Mode": mode, "Raw_Text_Output": raw}
            assert await driver.rows("select 1 as a, 'x' as b where false", **how) == []
            too_long = await driver.ask(f"select repeat('x', {9 * 1024 * 1024}) as a", **how)
            error(too_long, "54000")
    # A later version of the driver may request it for each statement.
    result = ok(await driver.send({"query": "select 1 as a", "arrayMode": False, "more": 1}))
    assert (result["rows"], result["rowAsArray"]) == ([{"a": "1"}], False)


async def test_parameters_are_text_of_any_type(driver: Driver) -> None:
    for expression, given, text in (
        ("$1::int", "7", "7"),
        ("$1::int", 7, "7"),
        ("$1::numeric", 1.10, "1.1"),
        ("$1::bool", True, "t"),
        ("$1::text", True, "true"),
        ("$1::text", "it's", "it's"),
        ("$1::int", None, None),
        ("$1::jsonb", '{"a": 1}', '{"a": 1}'),
        ("$1::jsonb", {"a": [1, None]}, '{"a": [1, null]}'),
        ("$1::json", "7", "7"),
        ("$1::int[]", [1, None], "{1,NULL}"),
        ("$1::text[]", ["a,b", 'c"d', "\\", "NULL", ""], r'{"a,b","c\"d","\\","NULL",""}'),
        ("$1::int[]", [[1], [2]], "{{1},{2}}"),
        ("$1::jsonb[]", [{"a": 1}], r'{"{\"a\": 1}"}'),
        ("$1::timestamptz at time zone 'UTC'", "2026-11-20T10:00:00+01", "2026-11-20 09:00:00"),
        ("$1::bytea", "\\x00ff", "\\x00ff"),
    ):
        assert await driver.rows(f"select {expression}", given) == [[text]], (expression, given)
    zeros = b'{"query": "select $1::float8, $2::int, $3::float8[]", "params": [-0, -0, [-0]]}'
    assert ok(await driver.send(zeros))["rows"] == [["-0", "0", "{-0}"]]
    digits = b'{"query": "select $1::numeric", "params": [1.10000000000000000000001e400]}'
    [[found]] = ok(await driver.send(digits))["rows"]
    assert found.startswith("110000000000000000000001")
    assert len(found) == 401


async def test_all_rows_come_or_none(driver: Driver) -> None:
    rows = await driver.rows("select g, repeat('x', g % 50) from generate_series(1, 2500) g")
    assert rows == [[str(g), "x" * (g % 50)] for g in range(1, 2501)]
    error(await driver.ask("select repeat('x', 1048576) from generate_series(1, 9)"), "54000")
    error(await driver.transaction(*["select repeat('x', 5000000)"] * 2), "54000")
    assert await driver.rows("select 1") == [["1"]]


async def test_forms_are_those_that_drivers_read_whatever_was_set(driver: Driver) -> None:
    value = "select '2026-11-20'::date, '1 day'::interval, '\\xff'::bytea, 'é'"
    changes = ("DateStyle = German", "IntervalStyle = iso_8601", "bytea_output = escape")
    response = await driver.transaction(
        *(f"set {each}" for each in changes), "set client_encoding = latin1", value
    )
    assert ok(response)["results"][-1]["rows"] == [["2026-11-20", "1 day", "\\xff", "é"]]


# --- transactions ----------------------------------------------------------------------------


async def test_a_transaction_is_all_or_nothing(driver: Driver) -> None:
    ok(await driver.ask("create table parts (id int primary key)"))
    done = ok(
        await driver.transaction(
            "insert into parts values (1), (2)", "select count(*) from parts", "delete from parts"
        )
    )
    shown = [(each["command"], each["rowCount"], each["rows"]) for each in done["results"]]
    assert shown == [("INSERT", 2, []), ("SELECT", 1, [["2"]]), ("DELETE", 2, [])]
    insert = "insert into parts values (3)"
    error(await driver.transaction(insert, "select 1/0"), "22012")
    error(await driver.transaction(insert, insert), "23505")
    error(await driver.transaction(insert, "rollback"), "2D000")
    error(await driver.transaction(insert, "commit", "select 1"), "2D000")
    assert await driver.rows("select * from parts") == []


async def test_a_transaction_has_the_modes_that_were_asked_for(driver: Driver) -> None:
    show = [f"show transaction_{each}" for each in ("isolation", "read_only", "deferrable")]

    async def modes(**headers: str) -> list[str]:
        results = ok(await driver.transaction(*show, **headers))["results"]
        return [each["rows"][0][0] for each in results]

    assert await modes() == ["read committed", "off", "off"]
    for name, level in (
        ("ReadUncommitted", "read uncommitted"),
        ("ReadCommitted", "read committed"),
        ("RepeatableRead", "repeatable read"),
        ("Serializable", "serializable"),
    ):
        assert await modes(Batch_Isolation_Level=name) == [level, "off", "off"]
    shown = await modes(
        Batch_Isolation_Level="Serializable", Batch_Read_Only="true", Batch_Deferrable="true"
    )
    assert shown == ["serializable", "on", "on"]
    error(await driver.transaction("create table no (id int)", Batch_Read_Only="true"), "25006")
    error(await driver.transaction("select 1", Batch_Isolation_Level="Chaos"), "22023")
    # They mean nothing for a single statement.
    assert await driver.rows(show[1], Batch_Read_Only="true") == [["off"]]


async def test_a_commit_that_fails_is_reported_with_its_constraint(driver: Driver) -> None:
    for statement in (
        "create table parent (id int primary key)",
        "create table child (id int constraint known references parent initially deferred)",
    ):
        ok(await driver.ask(statement))
    found = error(await driver.ask("insert into child values (1)"), "23503")
    assert (found["constraint"], found["table"]) == ("known", "child")
    assert "is not present" in found["detail"]


# --- what is not changed ---------------------------------------------------------------------


async def test_the_next_borrower_of_the_connection_gets_its_own_values(
    standing_api: Api, driver: Driver
) -> None:
    """A thousand leases on one connection, every second one through this protocol."""
    await standing_api.client.put("/v1/tenants/acme/pool", json={"max_size": 1})
    values = "select 7 as n, 1.5::numeric as d, now() as t, '{1,2}'::int[] as a, true as b"
    try:
        backends = set()
        for number in range(500):
            [row] = await driver.rows(f"{values}, pg_backend_pid()")
            assert row[:2] == ["7", "1.5"]
            assert (row[3], row[4]) == ("{1,2}", "t")
            async with standing_api.service.manager.lease("acme") as connection:
                record = await connection.fetchrow(f"{values}, pg_backend_pid() as pid")
            assert record is not None
            assert [type(each).__name__ for each in record.values()][:5] == [
                *("int", "Decimal", "datetime", "list", "bool")
            ]
            backends |= {int(row[5]), record["pid"]}
            if number % 100 == 0:
                assert await standing_api.value("/v1/tenants/acme", "select 7") == 7
        assert len(backends) == 1
    finally:
        await standing_api.client.put("/v1/tenants/acme/pool", json={"max_size": 5})


# --- errors ----------------------------------------------------------------------------------


async def test_errors_are_postgres_own(driver: Driver) -> None:
    found = error(await driver.ask("select * from nowhere"), "42P01")
    assert found["message"] == 'relation "nowhere" does not exist'
    assert (found["severity"], found["position"]) == ("ERROR", "15")
    assert (found["routine"], found["detail"]) == ("parserOpenTable", None)
    raising = "raise exception 'mine' using errcode = 'AB123', hint = 'h', detail = 'd', "
    raising += "schema = 's', table = 't', column = 'c', datatype = 'y', constraint = 'n'"
    found = error(await driver.ask(f"do $$ begin {raising}; end $$"), "AB123")
    set_by_it = ("message", "hint", "detail", "schema", "table", "column", "dataType", "constraint")
    assert [found[each] for each in set_by_it] == ["mine", "h", "d", "s", "t", "c", "y", "n"]
    assert "PL/pgSQL function" in found["where"]
    found = error(await driver.ask("do $$ begin execute 'selec'; end $$"), "42601")
    assert (found["internalQuery"], found["internalPosition"]) == ("selec", "1")
    long = "do $$ begin raise exception '%', repeat('x', 99999); end $$"
    assert len(error(await driver.ask(long), "P0001")["message"]) < 5000


async def test_the_message_of_an_invalid_request_says_what_is_wrong(driver: Driver) -> None:
    found = error(await driver.ask("select '\0'"), "22023")
    assert found["message"] == (
        "The request does not match its schema. /body/query: Text must not contain a NUL character."
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "08P01"),
        (b"{", "08P01"),
        (b'{"query": "select 1", "query": "select 2"}', "08P01"),
        (b"[]", "22023"),
        ({}, "22023"),
        ({"query": 7}, "22023"),
        ({"queries": []}, "22023"),
        ({"queries": [{"params": []}]}, "22023"),
        ({"query": "select 1", "params": {}}, "22023"),
        ({"query": "x" * 100_001}, "22023"),
        ({"query": "select 1", "params": [None] * 1001}, "22023"),
        ({"query": "select 1", "params": [json.loads("[" * 40 + "]" * 40)]}, "22023"),
        ({"queries": [{"query": "select 1"}] * 1001}, "22023"),
        ({"query": "select 1; select 2"}, "42601"),
        ({"query": "select $1::int", "params": []}, "08P01"),
        ({"query": "select $1::int", "params": ["1", "2"]}, "08P01"),
        ({"query": "select $1::int", "params": ["x"]}, "22P02"),
        ({"query": "copy (select 1) to stdout"}, "0A000"),
        ({"query": "rollback"}, "2D000"),
        ({"query": "start transaction"}, "25001"),
        ({"query": "listen x"}, "0A000"),
        ({"query": "vacuum"}, "25001"),
        (b'{"query": "' + b" " * 1024 * 1024 + b'"}', "54000"),
    ],
)
async def test_what_cannot_be_run_is_refused_in_the_same_shape(
    driver: Driver, body: object, code: str
) -> None:
    error(await driver.send(body), code)
    assert await driver.rows("select 1") == [["1"]]


async def test_an_empty_body_is_said_to_be_empty(driver: Driver) -> None:
    assert error(await driver.send(b""), "08P01")["message"] == "The body is empty."


async def test_a_request_without_a_connection_string_is_refused(driver: Driver) -> None:
    for header in (
        None,
        "acme.web",
        "postgresql://acme.web@host/acme",
        "postgresql://acme.web:secret@host",
        "mysql://acme.web:secret@host/acme",
    ):
        response = await driver.send({"query": "select 1"}, {"Neon-Connection-String": header})
        assert "postgresql://USER" in error(response, "08P01")["message"]


async def test_host_port_and_options_are_ignored(driver: Driver) -> None:
    other = driver.instead(host="db.example:6543")
    assert await other.rows("select current_user") == [["tenant_acme"]]
    optional = Driver(driver.api, f"{driver.url}?sslmode=require&application_name=a%2Fb")
    assert await optional.rows("select 1") == [["1"]]
    encoded = driver.url.replace("acme.web", "acme%2Eweb")
    assert await Driver(driver.api, encoded).rows("select 1") == [["1"]]


# --- who may use it --------------------------------------------------------------------------


async def test_a_wrong_login_is_refused_and_no_password_is_shown(
    standing_api: Api, driver: Driver
) -> None:
    failures = standing_api.app.state.authenticator.failures
    before = failures.copy()
    password = driver.password
    with capture_logs() as logged:
        for other in (
            driver.instead(password="wrong"),
            driver.instead(password=f"{password}x"),
            driver.instead(user="acme.other"),
            driver.instead(user="globex.web"),
            driver.instead(user="acme"),
        ):
            found = error(await other.ask("select 1"), "28P01")
            assert found["severity"] == "FATAL"
        error(await driver.ask("selec"), "42601")
    assert sum((failures - before).values()) == 5
    refusals = ok(await standing_api.client.get("/v1/refusals"))
    for text in (str(logged), str(refusals)):
        assert password not in text
        assert "acme.web:" not in text
    [latest] = [each for each in refusals["items"] if each["code"] == "statement-failed"][:1]
    assert (latest["tenant"], latest["actor"], latest["path"]) == ("acme", "acme.web", "/sql")


async def test_a_credential_opens_no_other_tenant(standing_api: Api, driver: Driver) -> None:
    await standing_api.tenant("globex")
    error(await driver.instead(database="globex").ask("select 1"), "28000")
    error(await driver.instead(database="nobody").ask("select 1"), "28000")


async def test_too_many_failures_of_an_address_must_wait(standing_api: Api, driver: Driver) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(standing_api.app, client=("203.0.113.9", 1)),
        base_url="http://localhost",
    ) as client:
        stranger = Driver(Api(standing_api.app, client), driver.url)
        wrong = stranger.instead(password="wrong")
        while (refused := await wrong.ask("select 1")).json()["code"] == "28P01":
            pass
        error(refused, "53400")
        assert int(refused.headers["retry-after"]) >= 1
        # The right password still works.
        assert await stranger.rows("select 1") == [["1"]]


async def test_a_revoked_or_replaced_credential_is_refused_at_once(standing_api: Api) -> None:
    driver = await driver_for(standing_api, "revoked")
    assert await driver.rows("select 1") == [["1"]]
    url = "/v1/tenants/revoked/credentials"
    shown = ok(await standing_api.client.get(f"{url}/web"))
    assert shown["last_used_at"] is not None
    ok(await standing_api.client.delete(f"{url}/web"))
    error(await driver.ask("select 1"), "28P01")
    again = ok(await standing_api.client.post(url, json={"name": "web"}), 201)
    error(await driver.ask("select 1"), "28P01")
    assert await Driver(standing_api, again["connection_string"]).rows("select 1") == [["1"]]


async def test_an_api_key_is_neither_needed_nor_enough(standing_api: Api, driver: Driver) -> None:
    headers = {"Authorization": "Bearer wrong"}
    assert ok(await driver.send({"query": "select 1"}, headers))["rows"] == [["1"]]


async def test_a_shared_tenant_is_refused_even_if_it_had_a_credential(standing_api: Api) -> None:
    await standing_api.tenant("all", "shared")
    planted = ApplicationCredential(
        tenant=TenantId("all"),
        name="web",
        verifier=scram_verifier("x", iterations=1),
        created_at=datetime.now(UTC),
        expires_at=None,
        last_used_at=None,
    )
    standing_api.service.credentials._known["all"]["web"] = planted
    error(await Driver(standing_api, "postgresql://all.web:x@host/all").ask("select 1"), "0A000")


async def test_nothing_is_read_of_a_body_without_a_password(standing_api: Api) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"{}"

    response = await standing_api.client.post(
        "/sql",
        content=body(),
        headers={"Neon-Connection-String": "postgresql://acme.web:wrong@host/acme"},
    )
    error(response, "28P01")
    assert read == []
