"""One statement as a tenant, over HTTP."""

import asyncio
from typing import Any

import pytest
from httpx import Response

from app.domain.pool import PoolState
from tests.fixtures.app import Api, ApiWith, ok, pointers, problem
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


async def test_rows_beyond_the_maximum_are_left_out(api: Api, acme: str) -> None:
    result = ok(await api.query(acme, "select generate_series(1, 10)", max_rows=3))
    assert (result["rows"], result["row_count"]) == ([[1], [2], [3]], 3)
    assert result["truncated"] is True
    result = ok(await api.query(acme, "select generate_series(1, 3)", max_rows=3))
    assert (result["row_count"], result["truncated"]) == (3, False)


async def test_a_write_must_be_meant(api: Api, acme: str) -> None:
    refused = problem(await api.query(acme, "create table notes (text text)"), 403, "read-only")
    assert refused["hint"] == 'To write, send "read_only": false.'
    ok(await api.query(acme, "create table notes (text text)", read_only=False))
    insert = "insert into notes select generate_series(1, 3)"
    problem(await api.query(acme, insert), 403, "read-only")
    result = ok(await api.query(acme, insert, read_only=False))
    assert (result["status"], result["row_count"], result["columns"]) == ("INSERT 0 3", 3, [])
    assert await api.value(acme, "select count(*) from notes") == 3


async def test_a_statement_that_runs_into_its_timeout_is_cancelled(api: Api, acme: str) -> None:
    sleepy = "do $$ begin perform pg_sleep(60); end $$"
    for sql in ("select pg_sleep(60)", sleepy):
        details = problem(await api.query(acme, sql, timeout_seconds=0.5), 504, "query-timeout")
        assert details["detail"] == "The statement ran longer than 0.5 s. Nothing was changed."
        assert "`timeout_seconds` may be up to 30" in details["hint"]
    assert await api.value(acme, "select 1") == 1


async def test_a_statement_that_is_run_again_has_its_time_again(
    api: Api, acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted: list[float] = []
    monkeypatch.setattr(
        "app.api.routes.query.extend_deadline", lambda _, seconds: granted.append(seconds)
    )
    ok(await api.query(acme, "create table typed (v text)", read_only=False))
    write = "insert into typed values ($1) returning v"
    assert await api.value(acme, write, "1", read_only=False) == "1"
    ok(await api.query(acme, "alter table typed alter v type int using v::int", read_only=False))
    granted.clear()
    assert await api.value(acme, write, "2", read_only=False) == 2
    first, second = granted
    assert first == second > 0


async def test_no_free_connection_within_the_deadline_answers_with_retry_after(
    api_with: ApiWith,
) -> None:
    async with api_with(acquire_timeout_seconds=0.1, max_waiting=1) as api:
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


async def test_work_that_is_cut_with_its_pool_is_told_so(
    api: Api, acme: str, database: Database
) -> None:
    slow = asyncio.create_task(api.query(acme, "select pg_sleep(30)"))
    async with database.connected() as watcher:
        # Before the work begins, its caller would get another connection.
        count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE"
        await eventually(lambda: watcher.fetchval(f"{count} 'select pg_sleep(30)%'"))
    assert ok(await api.client.delete(f"{acme}/pool?deadline_seconds=0"))["cut"] == 1
    cut = problem(await slow, 503, "lease-lost")
    assert cut["detail"].startswith("The pool closed before the work had ended")


async def test_free_sql_on_a_shared_role_is_refused_where_it_is_not_allowed(
    api_with: ApiWith,
) -> None:
    async with api_with(query_on_shared=False) as api:
        shared, own = await api.tenant("acme", "shared"), await api.tenant("beta")
        problem(await api.query(shared, "select 1"), 422, "untrusted-sql-on-shared-role")
        assert await api.value(own, "select 1") == 1
        body = ok(await api.client.get(shared))
        assert (body["query_allowed"], "local" in body["query_refusal"]) == (False, True)
        body = ok(await api.client.get(own))
        assert (body["query_allowed"], body["query_refusal"]) == (True, None)


@pytest.mark.parametrize("strategy", ["shared", "per_tenant", "per_database"])
@pytest.mark.parametrize("read_only", [True, False])
async def test_a_statement_that_chains_another_transaction_is_refused(
    api: Api, strategy: str, *, read_only: bool
) -> None:
    url = await api.tenant("acme", strategy)
    for chain in ("commit and chain", "ROLLBACK WORK AND CHAIN", "abort and chain"):
        response = await api.query(url, chain, read_only=read_only)
        problem(response, 422, "statement-ended-lease")
    assert await api.value(url, "select 1") == 1


async def test_a_tenant_without_its_schema_is_refused_until_it_is_provisioned(
    api: Api, acme: str
) -> None:
    ok(await api.query(acme, "drop schema tenant_acme", read_only=False))
    for statement in ("create table t as select 42", "select * from t", "select 1"):
        refused = problem(await api.query(acme, statement, read_only=False), 409, "schema-missing")
        assert "tenant_acme" in refused["detail"]
    ok(await api.client.post(f"{acme}/provision"))
    ok(await api.query(acme, "create table t as select 42 as a", read_only=False))
    assert await api.value(acme, "select a from t") == 42


# --- several statements ------------------------------------------------------------------------


async def send(api: Api, url: str, *statements: str, **body: Any) -> Response:
    return await api.client.post(
        f"{url}/query", json={"statements": [{"sql": each} for each in statements], **body}
    )


async def test_several_statements_are_one_transaction(api: Api, acme: str) -> None:
    create = ("create table notes (id int primary key)", "insert into notes values (1)")
    body = ok(await send(api, acme, *create, "select id from notes", read_only=False))
    assert [each["status"] for each in body["results"]] == ["CREATE TABLE", "INSERT 0 1", None]
    assert body["results"][2]["rows"] == [[1]]
    assert body["duration_ms"] >= 0
    insert = "insert into notes values (2)"
    refused = problem(
        await send(api, acme, insert, insert, read_only=False), 422, "statement-failed"
    )
    assert (refused["sqlstate"], refused["statement"]) == ("23505", 1)
    problem(
        await send(api, acme, insert, "rollback", read_only=False), 422, "statement-ended-lease"
    )
    problem(await send(api, acme, "select 1", insert), 403, "read-only")
    assert await api.value(acme, "select count(*) from notes") == 1


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("insert into notes values (1)", 403, "read-only"),
        ("commit", 422, "statement-ended-lease"),
        ("savepoint a; rollback to a", 422, "statement-failed"),
        ("begin", 422, "statement-failed"),
        ("copy notes to stdout", 422, "statement-failed"),
        ("select pg_sleep(60)", 504, "query-timeout"),
        ("select pg_terminate_backend(pg_backend_pid())", 503, "lease-lost"),
    ],
)
async def test_any_failure_of_several_statements_says_which_it_was(
    api: Api, acme: str, sql: str, status: int, code: str
) -> None:
    ok(await api.query(acme, "create table notes (id int)", read_only=False))
    seconds = 0.5 if code == "query-timeout" else 30
    for before in ([], ["select 1"], ["select 1", "savepoint a"]):
        answer = await send(api, acme, *before, sql, "select 2", timeout_seconds=seconds)
        assert problem(answer, status, code)["statement"] == len(before)
    alone = await api.query(acme, sql, timeout_seconds=seconds)
    assert "statement" not in problem(alone, status, code)


async def test_what_ran_before_a_commit_is_rolled_back(api: Api, acme: str) -> None:
    ok(await api.query(acme, "create table notes (id int)", read_only=False))
    insert = "insert into notes values (1)"
    for commit in ("commit", "/* now */ COMMIT AND CHAIN", "prepare transaction 'x'"):
        response = await send(api, acme, insert, commit, "select 1/0", read_only=False)
        refused = problem(response, 422, "statement-ended-lease")
        assert refused["statement"] == 1
        assert refused["detail"].endswith("Nothing was changed.")
    assert await api.value(acme, "select count(*) from notes") == 0


async def test_names_of_cursors_and_prepared_statements_are_the_tenants(
    api: Api, acme: str
) -> None:
    await api.query(acme, "create type mood as enum ('glad')", read_only=False)
    response = await send(
        api,
        acme,
        "declare poolkeeper cursor for select generate_series(7, 8)",
        "prepare poolkeeper_types as select 9",
        # Its rows come through a cursor, and its type is looked up with a prepared statement.
        "select 'glad'::mood",
        "fetch all poolkeeper",
        "execute poolkeeper_types",
        "deallocate poolkeeper_types",
    )
    rows = [each["rows"] for each in ok(response)["results"]]
    assert rows == [[], [], [["glad"]], [[7], [8]], [[9]], []]


async def test_several_statements_in_one_text_are_refused_with_a_hint(api: Api, acme: str) -> None:
    refused = problem(await api.query(acme, "select 1; select 2"), 422, "statement-failed")
    assert refused["sqlstate"] == "42601"
    assert "`statements`" in refused["hint"]


async def test_a_transaction_has_the_isolation_level_that_was_asked_for(
    api: Api, acme: str
) -> None:
    show = "show transaction_isolation"
    for level in ("read_uncommitted", "read_committed", "repeatable_read", "serializable"):
        shown = await api.value(acme, show, isolation_level=level)
        assert shown == level.replace("_", " ")
        body = ok(await send(api, acme, "select 1", show, isolation_level=level, read_only=False))
        assert body["results"][1]["rows"] == [[shown]]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, "/body/sql"),
        ({"sql": ""}, "/body/sql"),
        ({"sql": None}, "/body/sql"),
        ({"sql": "select 1", "statements": [{"sql": "select 1"}]}, "/body/sql"),
        ({"params": [1], "statements": [{"sql": "select $1"}]}, "/body/params"),
        ({"statements": []}, "/body/statements"),
        ({"statements": [{}]}, "/body/statements/0/sql"),
        ({"statements": [{"sql": ""}]}, "/body/statements/0/sql"),
        ({"statements": [{"sql": "select 1", "read_only": True}]}, "/body/statements/0/read_only"),
        ({"statements": [{"sql": "select 1"}] * 1001}, "/body/statements"),
        ({"sql": "select 1", "isolation_level": "chaos"}, "/body/isolation_level"),
    ],
)
async def test_either_one_statement_or_several_are_asked_for(
    api: Api, acme: str, body: dict[str, Any], wrong: str
) -> None:
    for path in (f"{acme}/query", f"{acme}/query?dry_run=true"):
        assert pointers(await api.client.post(path, json=body)) == [wrong]


async def test_a_body_with_a_wrong_name_is_told_the_right_one_too(api: Api, acme: str) -> None:
    refused = await api.client.post(f"{acme}/query", json={"query": "select 1"})
    assert pointers(refused) == ["/body/sql", "/body/query"]
