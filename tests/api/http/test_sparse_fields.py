"""`?fields=`: every list leaves the requested fields in its items, and refuses others by name."""

import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from pydantic import BaseModel, field_serializer
from pydantic_core import to_json

from app.api.http import sparse_fields
from app.api.http.sparse_fields import exclusion_of, selecting
from app.domain.tenant import TenantId
from tests.fixtures.app import Api, ok, pointers
from tests.fixtures.openapi import committed
from tests.fixtures.turns import counted_turns


def lists() -> Iterator[str]:
    """The paths of all operations that return items, of tenant acme and node edge."""
    for path, methods in committed()["paths"].items():
        success = methods.get("get", {}).get("responses", {}).get("200", {})
        media = success.get("content", {}).get("application/json", {})
        example = media.get("example") or {}
        if "items" in example:
            named = path.replace("{node}", "edge").replace("{pool_id}", "acme")
            yield re.sub(r"{\w+}", "acme", named)


async def test_every_list_and_history_has_only_the_fields_that_were_requested(api: Api) -> None:
    url = await api.tenant("acme")
    ok(await api.client.put("/v1/nodes/edge", json={}), 201)
    ok(await api.client.post(f"{url}/credentials", json={"name": "web"}), 201)
    assert await api.value(url, "select 1") == 1
    await api.service.poller.run_once()
    lengths = {}
    for path in lists():
        whole = ok(await api.client.get(path))
        lengths[path] = len(whole["items"])
        first = next(iter(whole["items"][0])) if whole["items"] else None
        if first is None:
            continue
        sparse = ok(await api.client.get(path, params={"fields": first}))
        assert sparse.keys() == whole.keys(), path
        assert sparse["items"] == [{first: each[first]} for each in whole["items"]], path
    filled = {path for path, length in lengths.items() if length}
    some = {"/v1/tenants", "/v1/nodes", "/v1/events", "/v1/servers", f"{url}/stats/history"}
    assert some <= filled


@pytest.mark.parametrize("path", list(lists()))
async def test_an_unknown_field_is_refused(unstarted: httpx.AsyncClient, path: str) -> None:
    refused = await unstarted.get(path, params={"fields": "sql"})
    assert pointers(refused) == ["/query/fields"]
    assert refused.json()["errors"][0]["detail"] == "Items have no field sql."


async def test_an_unchanged_sparse_list_costs_a_304(api: Api) -> None:
    await api.tenant("acme")
    found = await api.client.get("/v1/tenants?fields=id,weight")
    assert ok(found)["items"] == [{"id": "acme", "weight": 1}]
    again = {"If-None-Match": found.headers["etag"]}
    unchanged = await api.client.get("/v1/tenants?fields=id,weight", headers=again)
    assert unchanged.status_code == 304


class Item(BaseModel):
    """An item with a field that must not be rendered."""

    name: str = "acme"
    large: str = ""

    @field_serializer("large")
    def fail(self, _: str) -> str:
        raise AssertionError


class Page(BaseModel):
    items: list[Item]


async def test_what_was_not_requested_is_not_rendered() -> None:
    async def page() -> Page:
        return Page(items=[Item()] * 2)

    exclusion = exclusion_of(Page)
    response = await selecting(page, exclusion)(excluded=await exclusion(fields="name"))
    assert response.body == b'{"items":[{"name":"acme"},{"name":"acme"}]}'


async def test_other_requests_have_their_turn_while_a_list_is_rendered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(await api.client.put("/v1/tenants/acme", json={}), 201)
    acme = api.service.manager.tenants.state("acme").tenant
    for number in range(99):
        spec = replace(acme.spec, id=TenantId(f"t{number:02}"))
        api.service.manager.put_tenant(replace(acme, spec=spec))
    api.service.snapshots.invalidate()
    for path in ("/v1/tenants", "/v1/stats"):
        async with counted_turns() as turns:
            monkeypatch.setattr(sparse_fields, "to_json", turns.counted(to_json))
            listed = ok(await api.client.get(path, params={"limit": 100}))
        assert len(listed["items"]) == turns.calls == 100
        assert turns.most == 1
