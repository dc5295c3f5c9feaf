"""All open pools over HTTP: the list, and the sweep."""

import asyncio
from typing import Any

import pytest

from app.control.pools import operations
from app.domain.errors import PoolTimeout
from app.domain.tenant import TenantId
from tests.catalog.values import recommendation
from tests.fixtures.app import Api, ApiWith, ok, pointers
from tests.fixtures.keys import Keyring
from tests.fixtures.turns import counted_turns
from tests.fixtures.waiting import eventually


async def ids(api: Api, **wanted: Any) -> list[str]:
    page = ok(await api.client.get("/v1/pools", params=wanted))
    return [item["pool_id"] for item in page["items"]]


async def test_open_pools_are_listed_by_id_and_filtered(api: Api) -> None:
    for name, strategy in [("zeta", "per_tenant"), ("acme", "per_database"), ("beta", "shared")]:
        await api.value(await api.tenant(name, strategy), "select 1")
    await api.tenant("idle")
    assert await ids(api) == ["acme", "shared@local", "zeta"]
    assert await ids(api, strategy="shared") == ["shared@local"]
    assert await ids(api, server="local", strategy="per_tenant") == ["zeta"]
    assert await ids(api, server="mars") == []


async def test_pools_are_sorted(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.tenant(name)
    manager = api.service.manager
    async with manager.lease("c"), manager.lease("c"), manager.lease("b"):
        await api.value("/v1/tenants/a", "select 1")
        assert await ids(api, sort="-active") == ["c", "b", "a"]
        assert await ids(api, sort="active") == ["a", "b", "c"]
        assert await ids(api, sort="-size") == ["c", "a", "b"]
        await api.client.post("/v1/tenants/b/pool/pause")
        waiting = asyncio.create_task(api.value("/v1/tenants/b", "select 1"), name="a query")
        await eventually(lambda: any(pool.metrics.waiting_requests for pool in manager.pools()))
        assert await ids(api, sort="-waiting") == ["b", "a", "c"]
        await api.client.post("/v1/tenants/b/pool/resume")
        await waiting
    slowest = [
        (-(item["wait_p99_ms"] or 0), item["pool_id"])
        for item in ok(await api.client.get("/v1/pools?sort=-wait_p99_ms"))["items"]
    ]
    assert slowest == sorted(slowest)


@pytest.mark.parametrize("sort", ["pool_id", "size", "-size", "-wait_p99_ms", "-waiting"])
async def test_pages_hold_every_pool_once(api: Api, sort: str) -> None:
    for name in "abcde":
        await api.value(await api.tenant(name), "select 1")
    seen: list[str] = []
    cursor: dict[str, str | None] = {}
    for _ in range(3):
        query: dict[str, str | int | None] = {"sort": sort, "limit": 2, **cursor}
        page = ok(await api.client.get("/v1/pools", params=query))
        seen += [item["pool_id"] for item in page["items"]]
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(seen) == list("abcde")
    assert cursor == {"cursor": None}


async def test_a_part_of_the_list_is_shown_and_the_whole_counted(api: Api) -> None:
    for name in ("acme", "acme-2", "beta", "gamma"):
        await api.value(await api.tenant(name), "select 1")
    assert await ids(api, offset=1, limit=2) == ["acme-2", "beta"]
    assert await ids(api, offset=4) == []
    assert await ids(api, search="cm") == ["acme", "acme-2"]
    page = ok(await api.client.get("/v1/pools?search=cm&limit=1&fields=pool_id"))
    assert (page["matches"], page["items"]) == (2, [{"pool_id": "acme"}])
    following = {"cursor": page["next_cursor"], "search": "cm"}
    assert await ids(api, **following) == ["acme-2"]
    assert await ids(api, cursor=page["next_cursor"], offset=1) == ["beta", "gamma"]
    assert pointers(await api.client.get("/v1/pools?offset=-1")) == ["/query/offset"]


async def test_a_cursor_belongs_to_its_order(api: Api) -> None:
    for name in "ab":
        await api.value(await api.tenant(name), "select 1")
    page = ok(await api.client.get("/v1/pools?limit=1"))
    query = {"cursor": page["next_cursor"], "sort": "-size"}
    assert pointers(await api.client.get("/v1/pools", params=query)) == ["/query/cursor"]


async def test_pools_have_the_requested_fields(api: Api) -> None:
    await api.value(await api.tenant("acme"), "select 1")
    page = ok(await api.client.get("/v1/pools?fields=pool_id,idle"))
    assert page["items"] == [{"pool_id": "acme", "idle": 1}]
    assert (page["age_seconds"], page["stale"], page["next_cursor"]) == (0, False, None)
    assert pointers(await api.client.get("/v1/pools?fields=tenant,idles")) == ["/query/fields"]


async def test_a_pool_is_listed_as_it_is_shown_by_itself(api: Api) -> None:
    for name, strategy in [("acme", "per_tenant"), ("beta", "shared"), ("gamma", "shared")]:
        await api.value(await api.tenant(name, strategy), "select 1")
    ok(await api.client.put("/v1/tenants/acme/pool", json={"min_size": 1, "max_size": 3}), 201)
    await eventually(lambda: api.service.manager.active_pools == 2)
    made = recommendation("acme")
    await api.service.catalog.recommendations.add(made)
    await api.service.advisor_loop.load()
    listed = ok(await api.client.get("/v1/pools"))["items"]
    alone = [ok(await api.client.get(f"/v1/tenants/{name}/pool")) for name in ("acme", "gamma")]
    # Lists do not show what nodes report.
    assert [each.pop("nodes") for each in (*listed, *alone)] == [None, None, [], []]
    assert [each.pop("share") for each in (*listed, *alone)] == [None, None, 3, 20]
    assert listed == alone
    assert listed[0]["recommendation"] == {
        "id": str(made.id),
        "new_size": made.advice.new_size,
        "reason": made.advice.reason,
        "created_at": "2026-07-14T12:00:00Z",
    }
    assert listed[1]["recommendation"] is None


async def test_a_sweep_reports_what_it_closed_and_why_others_stayed(api_with: ApiWith) -> None:
    async with api_with(idle_timeout_seconds=0.01) as api:
        unused = await api.tenant("unused")
        await api.client.put(f"{await api.tenant('kept')}/pool", json={"min_size": 1})
        await api.tenant("busy", "shared")
        await api.value(unused, "select 1")
        async with api.service.manager.lease("busy"):
            await asyncio.sleep(0.02)  # beyond the idle timeout, which this test is about
            swept = ok(await api.client.post("/v1/pools/evict-expired"))
        assert swept["evicted"] == [{"tenant": "unused", "pool_id": "unused", "reason": "idle"}]
        assert sorted(swept["skipped"], key=lambda skip: str(skip["pool_id"])) == [
            {"tenant": "kept", "pool_id": "kept", "reason": "min_size"},
            {"tenant": None, "pool_id": "shared@local", "reason": "busy"},
        ]


async def test_the_event_loop_has_its_turn_while_a_sweep_says_why_pools_stay_open(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await api.value(await api.tenant(f"t{number}"), "select 1")
    async with counted_turns() as turns:
        monkeypatch.setattr(operations, "_why_open", turns.counted(operations._why_open))
        swept = ok(await api.client.post("/v1/pools/evict-expired"))
    assert len(swept["skipped"]) == turns.calls == 3
    assert turns.most == 1


async def test_a_pool_in_use_lately_is_left_open(api: Api) -> None:
    await api.value(await api.tenant("acme"), "select 1")
    swept = ok(await api.client.post("/v1/pools/evict-expired"))
    assert swept == {
        "evicted": [],
        "skipped": [{"tenant": "acme", "pool_id": "acme", "reason": "not_expired"}],
    }


async def test_a_shared_pool_says_what_its_callers_wait_for_and_how_long_those_waited_that_gave_up(
    keyed_api: tuple[Api, Keyring],
) -> None:
    api, keys = keyed_api
    for name in ("acme", "beta"):
        await api.tenant(name, "shared")
    ok(await api.client.put("/v1/tenants/acme/pool?scope=pool", json={"max_size": 1}), 201)
    manager, acme, beta = api.service.manager, TenantId("acme"), TenantId("beta")

    async def wait_for(tenant: TenantId, timeout: float | None = None) -> None:
        async with manager.lease(tenant, timeout=timeout):
            pass

    async def pool() -> dict[str, Any]:
        # No request asked for these leases.
        api.service.snapshots.invalidate()
        found: dict[str, Any]
        [found] = ok(await api.client.get("/v1/pools"))["items"]
        return found

    async with asyncio.TaskGroup() as group, manager.lease(acme):
        with pytest.raises(PoolTimeout):
            await wait_for(beta, 0.2)
        assert (await pool())["wait_p99_ms"] > 190
        assert (await pool())["waits_for"] is None
        group.create_task(wait_for(beta))
        await eventually(lambda: manager.tenants.state(beta).waiting)
        shown = await pool()
        assert (shown["waiting"], shown["waits_for"]["cause"]) == (1, "max_size")
        one = ok(await api.client.get("/v1/tenants/beta/pool"))
        assert one["waits_for"] == shown["waits_for"]
        # Nobody of this tenant waits.
        assert ok(await api.client.get("/v1/tenants/acme/pool"))["waits_for"] is None
        api.client.headers.update(keys.headers("bound"))
        assert (await pool())["waits_for"] is None
