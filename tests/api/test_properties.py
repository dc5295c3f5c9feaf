"""IDs, cursors and specs of any kind: each is refused or returned unchanged, never a 500."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.http.paging import decode_cursor, encode_cursor
from tests.fixtures.app import Api, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The same examples every time: what one run finds, the next one finds again.
steady = settings(derandomize=True, deadline=None, max_examples=60)

LISTS = (
    "/v1/servers",
    "/v1/tenants",
    "/v1/pools",
    "/v1/stats",
    "/v1/events",
    "/v1/refusals",
    "/v1/recommendations",
)

texts = st.text(max_size=60)
awkward = st.sampled_from(["", ".", "..", "%", "%00", "\0", "a/b", "a\r\nb", "\u202e", "ä", "pg-x"])
ids = texts | awkward | st.from_regex(r"[a-z0-9-]{1,50}", fullmatch=True)
numbers = st.integers() | st.floats() | st.booleans() | st.none()
values = st.recursive(
    numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
labels = st.dictionaries(texts, texts, max_size=4)
specs = st.fixed_dictionaries(
    {"strategy": st.sampled_from(["shared", "per_tenant", "per_database"])},
    optional={
        "weight": st.integers(-1, 1100) | values,
        "max_leases": st.integers(-1, 20_000) | st.none() | values,
        "labels": labels | values,
    },
)


@pytest.mark.asyncio(loop_scope="function")
async def test_a_cursor_comes_back_as_the_key_it_was_made_of() -> None:
    parts = st.text(st.characters(exclude_categories=["C", "Z"])) | st.integers(-(2**62), 2**62)

    @steady
    @given(st.lists(parts, min_size=1, max_size=3))
    def check(key: list[str | int]) -> None:
        cursor = encode_cursor(*key)
        assert quote(cursor, safe="") == cursor
        assert list(decode_cursor(cursor, *map(type, key))) == key

    check()


@pytest.mark.asyncio(loop_scope="function")
async def test_anything_else_is_no_cursor() -> None:
    @steady
    @given(texts | values.map(encode_cursor))  # type: ignore[arg-type]
    def check(text: str) -> None:
        try:
            (part,) = decode_cursor(text, str)
        except RequestValidationError:
            return
        assert isinstance(part, str)
        assert "\0" not in part

    check()


@steady
@given(text=ids)
async def test_any_path_segment_is_a_tenant_or_is_refused(standing_api: Api, text: str) -> None:
    path = quote(text, safe="")
    for response in (
        await standing_api.client.get(f"/v1/tenants/{path}"),
        await standing_api.client.get(f"/v1/tenants/{path}/stats"),
        await standing_api.client.get(f"/v1/servers/{path}"),
    ):
        assert response.status_code in {200, 404, 405, 422}, response.text


@steady
@given(text=texts | awkward, path=st.sampled_from(LISTS))
async def test_a_cursor_made_of_anything_is_refused(
    standing_api: Api, text: str, path: str
) -> None:
    response = await standing_api.client.get(path, params={"cursor": text})
    # An empty cursor is none: the first page.
    assert response.status_code == (422 if text else 200), response.text


@steady
@given(spec=specs, name=st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True))
async def test_any_spec_comes_back_as_it_went_in_or_is_refused(
    standing_api: Api, spec: dict[str, Any], name: str
) -> None:
    url = f"/v1/tenants/{name}"
    response = await standing_api.client.put(
        url, content=json.dumps(spec), headers={"Content-Type": "application/json"}
    )
    if response.status_code in {400, 409, 422}:
        return
    assert response.status_code in {200, 201}, response.text
    body = ok(await standing_api.client.get(url))
    assert {key: body[key] for key in spec} == spec
