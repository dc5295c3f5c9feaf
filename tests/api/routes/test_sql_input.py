"""POST /sql with anything in its body and its headers: a result or Postgres' error, never a 500."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.app import ok
from tests.fixtures.driver import AS_THE_DRIVER, Driver, error

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The same examples every time: what one run finds, the next one finds again.
steady = settings(derandomize=True, deadline=None, max_examples=150)

numbers = st.integers() | st.floats() | st.booleans() | st.none()
texts = st.text(max_size=20) | st.sampled_from(["\0", "\ud800", "{}", "{1,NULL}", "\\", '"', "'"])
values = st.recursive(
    numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
sqls = st.sampled_from(
    [
        *("", ";", "selec", "select", "select 1; select 2", "select $1", "select $2::int"),
        *("select $1::text", "select $1::text[]", "select $1::jsonb", "select $1::numeric"),
        *("select row($1::text, 2)", "select '\\xff'::bytea, now(), 'x'::xml, '{}'::json"),
        *('select repeat(\'é\', 5000) as "a""b" from generate_series(1, 50)', "table pg_class"),
        *("begin", "commit", "rollback", "savepoint s", "set role none", "reset all", "listen x"),
        *("set client_encoding = latin1", "set datestyle = german", "set statement_timeout = 0"),
        *("set transaction isolation level serializable", "deallocate all", "discard all"),
        *("copy (select 1) to stdout", "create temp table if not exists t (a int)", "fetch 1 in c"),
        "do $$ begin raise exception using errcode = '57P01', message = repeat('x', 9999); end $$",
        "do $$ begin raise sqlstate 'XX000' using message = e'\\x01'; end $$",
    ]
)
statements = st.fixed_dictionaries(
    {},
    optional={
        "query": sqls | values,
        "params": st.lists(values, max_size=2) | values,
        "arrayMode": st.booleans() | values,
    },
)
usual = st.builds(lambda query, params: {"query": query, "params": params}, sqls, st.lists(values))
batches = st.lists(usual, max_size=4) | st.lists(usual | statements | values, max_size=4) | values
bodies = (
    usual | statements | st.builds(lambda queries: {"queries": queries}, batches) | values
).map(lambda document: json.dumps(document).encode()) | st.binary(max_size=50)
latin = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=30).map(
    lambda text: text.encode("latin-1")
)
modes = latin | st.sampled_from([b"true", b"false", b"TRUE", b"true, true", b"Serializable"])
NAMES = ("Raw-Text-Output", "Array-Mode", "Batch-Isolation-Level", "Batch-Read-Only")
headers = st.fixed_dictionaries(
    {}, optional={f"Neon-{name}": modes for name in (*NAMES, "Batch-Deferrable", "Other")}
)


async def send(
    driver: Driver, body: bytes, given_headers: dict[str, Any], url: bytes
) -> httpx.Response:
    whole = {**AS_THE_DRIVER, "Neon-Connection-String": url, **given_headers}
    return await driver.api.client.post("/sql", content=body, headers=whole)


@steady
@given(body=bodies, given_headers=headers)
async def test_any_body_and_any_modes(
    driver: Driver, body: bytes, given_headers: dict[str, Any]
) -> None:
    response = await send(driver, body, given_headers, driver.url.encode())
    if response.status_code == 200:
        assert {"results", "rows"} & response.json().keys()
    else:
        found = error(response, response.json()["code"])
        assert len(found["code"]) == 5
        assert max(len(each or "") for each in found.values()) <= 4001
    assert await driver.rows("show datestyle") == [["ISO, MDY"]]
    [pool] = driver.api.service.manager.pools()
    assert (len(pool.connections.leased), pool.metrics.waiting_requests) == (0, 0)


@steady
@given(
    url=latin
    | st.lists(
        st.sampled_from([b"postgresql://", b"acme.web", b":", b"@", b"/", b"%00", b"%", b"?", b"x"])
        | latin,
        max_size=8,
    ).map(b"".join)
)
async def test_any_connection_string_is_refused(driver: Driver, url: bytes) -> None:
    response = await send(driver, b"{}", {}, url)
    assert response.json()["code"] in {"08P01", "28P01", "53400"}
    ok(response, 400)
