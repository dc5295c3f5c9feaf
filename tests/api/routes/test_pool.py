"""One tenant's pool over HTTP: opened, resized, operated on, evicted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app.domain.errors import PoolPaused
from app.pools.pool import Pool
from tests.fixtures.app import Api, ApiWith, ok, pointers, problem
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


@asynccontextmanager
async def lent(api: Api, tenant: str) -> AsyncIterator[None]:
    """Hold one lease of *tenant* for a block, whatever happens to its connection."""
    entered, end = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with api.service.manager.lease(tenant):
            entered.set()
            await end.wait()

    holder = asyncio.create_task(hold(), name="holds a lease")
    await entered.wait()
    try:
        yield
    finally:
        end.set()
        await asyncio.gather(holder, return_exceptions=True)


async def test_the_first_put_opens_a_warm_pool_and_the_next_resizes_it(api: Api) -> None:
    pool = await api.tenant("acme") + "/pool"
    opened = await api.client.put(pool, json={"max_size": 4, "warmup_size": 2})
    body = ok(opened, 201)
    assert opened.headers["etag"].startswith('"1-')
    assert (body["open"], body["state"], body["size"], body["idle"]) == (True, "ready", 2, 2)
    assert body["desired"] == {"min_size": 0, "max_size": 4, "warmup_size": 2, "paused": False}
    resized = await api.client.put(pool, json={"max_size": 1})
    body = ok(resized)
    assert resized.headers["etag"].startswith('"2-')
    assert body["desired"] == {"min_size": 0, "max_size": 1, "warmup_size": 1, "paused": False}
    await eventually(lambda: only_pool(api).metrics.total_connections == 1)


@pytest.mark.parametrize("content", [b"", b"{}", b"null"])
async def test_an_empty_body_opens_the_pool_with_its_defaults(api: Api, content: bytes) -> None:
    pool = await api.tenant("acme") + "/pool"
    headers = {"Content-Type": "application/json"} if content else {}
    body = ok(await api.client.put(pool, content=content, headers=headers), 201)
    assert body["desired"] == {"min_size": 0, "max_size": 5, "warmup_size": 1, "paused": False}


async def test_a_repeated_put_keeps_the_version(api: Api) -> None:
    pool = await api.tenant("acme") + "/pool"
    for status in (201, 200, 200):
        response = await api.client.put(pool, json={"max_size": 3})
        assert ok(response, status)["generation"] == 1


async def test_a_pool_needs_a_provisioned_tenant(api: Api) -> None:
    await api.client.put("/v1/tenants/acme", json={"strategy": "per_tenant"})
    for method, path, body in [
        ("PUT", "/pool", {}),
        ("POST", "/query", {"sql": "select 1"}),
    ]:
        refused = await api.client.request(method, f"/v1/tenants/acme{path}", json=body)
        problem(refused, 409, "not-provisioned")


async def test_an_unknown_pool_is_not_found_and_a_closed_one_is_shown(api: Api) -> None:
    pool = await api.tenant("acme") + "/pool"
    problem(await api.client.get(pool), 404, "pool-not-found")
    for method, path in [
        ("DELETE", ""),
        ("POST", "/drain"),
        ("POST", "/recycle"),
        ("POST", "/check"),
    ]:
        problem(await api.client.request(method, pool + path), 404, "pool-not-found")
    await api.client.put(pool, json={"max_size": 3})
    await api.client.delete(pool)
    closed = await api.client.get(pool)
    assert closed.headers["etag"].startswith('"1-')
    body = ok(closed)
    assert (body["open"], body["state"], body["size"]) == (False, "closed", 0)
    assert body["desired"]["max_size"] == 3


async def test_if_match_guards_the_size_too(api: Api) -> None:
    pool = await api.tenant("acme") + "/pool"
    refused = await api.client.put(pool, json={}, headers={"If-Match": "*"})
    problem(refused, 412, "stale-version")
    ok(await api.client.put(pool, json={}, headers={"If-None-Match": "*"}), 201)
    ok(await api.client.put(pool, json={"max_size": 2}, headers={"If-Match": '"1"'}))
    refused = await api.client.put(pool, json={"max_size": 3}, headers={"If-Match": '"1"'})
    problem(refused, 412, "stale-version")


async def test_an_open_pool_without_desired_state_has_a_version(api: Api) -> None:
    url = await api.tenant("acme")
    await api.value(url, "select 1")
    tag = (await api.client.get(f"{url}/pool")).headers["etag"]
    assert tag.startswith('"0-')
    pool = f"{url}/pool"
    refused = await api.client.put(pool, json={}, headers={"If-None-Match": "*"})
    problem(refused, 412, "stale-version")
    asked = await api.client.put(pool, json={"max_size": 2}, headers={"If-Match": tag})
    assert ok(asked, 201)["generation"] == 1
    refused = await api.client.put(pool, json={}, headers={"If-Match": tag})
    problem(refused, 412, "stale-version")


async def test_more_kept_connections_than_the_server_has_are_refused(api: Api) -> None:
    pool = await api.tenant("acme") + "/pool"
    refused = await api.client.put(pool, json={"min_size": 500, "max_size": 500})
    problem(refused, 409, "connection-budget-exceeded")
    problem(await api.client.get(pool), 404, "pool-not-found")


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"max_size": 0}, ["/body/max_size"]),
        ({"max_size": -1}, ["/body/max_size"]),
        ({"max_size": 10**9}, ["/body/max_size"]),
        ({"max_size": 10**100}, ["/body/max_size"]),
        ({"max_size": "10"}, ["/body/max_size"]),
        ({"max_size": 1.5}, ["/body/max_size"]),
        ({"max_size": True}, ["/body/max_size"]),
        ({"max_size": []}, ["/body/max_size"]),
        ({"min_size": -1}, ["/body/min_size"]),
        ({"min_size": 3, "max_size": 2}, ["/body/min_size"]),
        ({"warmup_size": 3, "max_size": 2}, ["/body/warmup_size"]),
        ({"max_size": 2, "min_siz": 1}, ["/body/min_siz"]),
        ([], ["/body"]),
        ("x", ["/body"]),
    ],
)
async def test_invalid_sizes_are_refused_with_their_place(
    api: Api, body: object, places: list[str]
) -> None:
    await api.client.put("/v1/tenants/acme", json={})
    assert pointers(await api.client.put("/v1/tenants/acme/pool", json=body)) == places


async def test_a_min_size_above_the_size_in_force_is_refused(api: Api) -> None:
    pool = await api.tenant("acme") + "/pool"
    problem(await api.client.put(pool, json={"min_size": 6}), 422, "invalid-input")


async def test_a_paused_pool_hands_out_nothing_until_it_is_resumed(api: Api) -> None:
    url = await api.tenant("acme")
    ok(await api.client.put(f"{url}/pool"), 201)
    paused = ok(await api.client.post(f"{url}/pool/pause"))
    assert (paused["state"], paused["desired"]["paused"]) == ("paused", True)
    waiting = asyncio.create_task(api.value(url, "select 1"), name="a query")
    await eventually(lambda: only_pool(api).metrics.waiting_requests == 1)
    resumed = ok(await api.client.post(f"{url}/pool/resume"))
    assert resumed["desired"]["paused"] is False
    assert await waiting == 1


async def test_a_paused_pool_is_shown_everywhere_whether_or_not_it_is_open(api: Api) -> None:
    url = await api.tenant("acme")
    await api.tenant("beta")
    await api.tenant("gamma", "shared")
    ok(await api.client.put(f"{url}/pool", json={"max_size": 3}), 201)
    pause = ok(await api.client.post(f"{url}/pool/pause"))["pause"]
    assert pause["by"] == "api"
    # A repeated pause keeps its beginning.
    assert ok(await api.client.post(f"{url}/pool/pause"))["pause"] == pause
    ok(await api.client.post("/v1/tenants/gamma/pool/pause?scope=pool"))
    for is_open in (True, False):
        if not is_open:
            ok(await api.client.delete(f"{url}/pool"))
        pool = ok(await api.client.get(f"{url}/pool"))
        assert (pool["open"], pool["state"], pool["pause"]) == (is_open, "paused", pause)
        listed = ok(await api.client.get("/v1/pools"))["items"]
        assert [(each["pool_id"], each["state"], each["pause"] is None) for each in listed] == [
            ("acme", "paused", False),
            ("shared@local", "paused", False),
        ]
        assert [each["open"] for each in listed] == [is_open, False]
        assert listed[0]["desired"]["max_size"] == 3
        tenants = ok(await api.client.get("/v1/tenants"))["items"]
        assert [each["pool"] and each["pool"]["state"] for each in tenants] == [
            "paused",
            None,
            "paused",
        ]
        assert tenants[0]["pool"]["pause"] == pause
        server = ok(await api.client.get("/v1/servers/local"))
        assert [each["pool_id"] for each in server["pools"]] == ["acme", "shared@local"]
        stats = ok(await api.client.get("/v1/stats"))
        assert stats["pools"] == {"open": int(is_open), "by_state": {"paused": 2}}
        assert [each["pool_state"] for each in stats["items"]] == ["paused", "closed", "paused"]
        assert ok(await api.client.get(f"{url}/stats"))["pool_state"] == "paused"
    assert ok(await api.client.post(f"{url}/pool/resume"))["state"] == "closed"
    assert [each["pool_id"] for each in ok(await api.client.get("/v1/pools"))["items"]] == [
        "shared@local"
    ]


async def test_callers_of_a_paused_pool_get_its_code(api: Api) -> None:
    url = await api.tenant("acme")
    ok(await api.client.post(f"{url}/pool/pause"))
    with pytest.raises(PoolPaused):
        async with api.service.manager.lease("acme", timeout=0.01):
            pass


async def test_callers_of_a_paused_pool_are_refused_at_once_if_so_set(api_with: ApiWith) -> None:
    async with api_with(callers_of_paused_pools="refuse", acquire_timeout_seconds=300) as api:
        url = await api.tenant("acme")
        ok(await api.client.post(f"{url}/pool/pause"))
        problem(await api.query(url, "select 1"), 503, "pool-paused")
        ok(await api.client.post(f"{url}/pool/resume"))
        assert await api.value(url, "select 1") == 1


async def test_recycling_replaces_every_connection_without_a_failure(api: Api) -> None:
    url = await api.tenant("acme")
    await api.client.put(f"{url}/pool", json={"warmup_size": 2})
    before = await api.value(url, "select pg_backend_pid()")
    async with lent(api, "acme"):
        done = ok(await api.client.post(f"{url}/pool/recycle"))
        assert done == {"pool_id": "acme", "tenants": 1, "connections": 2, "nodes": []}
    assert await api.value(url, "select pg_backend_pid()") != before


async def test_a_tenant_that_only_nodes_serve_is_recycled_and_evicted_there(api: Api) -> None:
    pool = await api.tenant("acme") + "/pool"
    ok(await api.client.put("/v1/nodes/edge", json={}), 201)
    nodes = [{"node": "edge", "recycled": False}]
    done = ok(await api.client.post(f"{pool}/recycle"))
    assert done == {"pool_id": "acme", "tenants": 1, "connections": 0, "nodes": nodes}
    evicted = ok(await api.client.delete(pool, headers={"If-Match": "*"}))
    assert (evicted["closed"], evicted["nodes"]) == (0, nodes)
    assert ok(await api.client.post(f"{pool}/drain"), 202)["state"] == "closed"
    problem(await api.client.post(f"{pool}/check"), 404, "pool-not-found")


async def test_a_check_reports_the_number_of_tested_connections(api: Api) -> None:
    url = await api.tenant("acme")
    await api.client.put(f"{url}/pool", json={"warmup_size": 2})
    done = ok(await api.client.post(f"{url}/pool/check"))
    assert done == {"pool_id": "acme", "tenants": 1, "tested": 2, "failed": 0}


async def test_a_draining_pool_refuses_at_once_and_the_next_use_opens_another(api: Api) -> None:
    url = await api.tenant("acme")
    async with lent(api, "acme"):
        begun = ok(await api.client.post(f"{url}/pool/drain?deadline_seconds=60"), 202)
        assert begun["deadline_seconds"] == 60
        await eventually(lambda: only_pool(api).is_closing)
        problem(await api.query(url, "select 1"), 503, "pool-draining")
    await eventually(lambda: not list(api.service.manager.pools()))
    assert await api.value(url, "select 1") == 1


async def test_eviction_waits_for_leases_until_its_deadline_and_force_does_not(api: Api) -> None:
    url = await api.tenant("acme")
    async with lent(api, "acme"):
        cut = ok(await api.client.delete(f"{url}/pool?deadline_seconds=0.05"))
        assert cut == {
            "pool_id": "acme",
            "tenants": 1,
            "reason": "requested",
            "closed": 1,
            "cut": 1,
            "nodes": [],
        }
    async with lent(api, "acme"):
        cut = ok(await api.client.delete(f"{url}/pool?mode=force&deadline_seconds=300"))
        assert (cut["closed"], cut["cut"]) == (1, 1)
    ok(await api.client.put(f"{url}/pool"), 201)
    gone = ok(await api.client.delete(f"{url}/pool"))
    assert (gone["closed"], gone["cut"]) == (1, 0)


async def test_an_eviction_changes_nothing_that_was_declared(api: Api) -> None:
    pool = await api.tenant("acme") + "/pool"
    declared = ok(await api.client.put(pool, json={"min_size": 2}), 201)
    plan = ok(await api.client.delete(f"{pool}?dry_run=true"))
    assert [step["action"] for step in plan["plan"]] == ["close"]
    assert ok(await api.client.delete(pool))["reason"] == "requested"
    await api.service.reconciler.run_once()
    body = ok(await api.client.get(pool))
    assert (body["open"], body["desired"]) == (False, declared["desired"])
    assert body["generation"] == declared["generation"]


async def test_a_plan_warns_of_a_maximum_that_the_budget_never_reaches(api: Api) -> None:
    pool = await api.tenant("acme") + "/pool?dry_run=true"
    limit = api.service.manager.servers["local"].limit
    within = ok(await api.client.put(pool, json={"max_size": limit}))
    assert within["warnings"] == []
    beyond = ok(await api.client.put(pool, json={"max_size": limit + 1}))
    [warning] = beyond["warnings"]
    assert warning.startswith(f"max_size {limit + 1} is never reached: ")
    assert f"have {limit} connections together" in warning


async def test_a_put_that_waits_for_a_deletion_opens_nothing(api: Api) -> None:
    url = await api.tenant("acme")
    async with lent(api, "acme"):
        deletion = asyncio.create_task(
            api.client.delete(f"{url}?deadline_seconds=0.2"), name="a deletion"
        )
        await eventually(lambda: only_pool(api).is_closing)
        late = [
            api.client.put(f"{url}/pool", json={"min_size": 1}),
            api.client.post(f"{url}/pool/pause"),
        ]
        for refused in await asyncio.gather(*late):
            problem(refused, 409, "tenant-deleting")
        ok(await deletion)
    assert not list(api.service.manager.pools())
    assert not api.service.manager.desired


async def test_a_shared_pool_is_touched_through_one_tenant_only_with_its_scope(api: Api) -> None:
    url = await api.tenant("acme", "shared")
    await api.tenant("beta", "shared")
    opened = ok(await api.client.put(f"{url}/pool"), 201)
    assert (opened["pool_id"], opened["tenants"], opened["tenant"]) == ("shared@local", 2, None)
    ok(await api.client.put(f"{url}/pool", json={"max_size": 20}))  # no change
    for method, path, body in [
        ("PUT", "", {"max_size": 10}),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/drain", None),
        ("POST", "/recycle", None),
        ("POST", "/check", None),
        ("DELETE", "", None),
    ]:
        refused = await api.client.request(method, f"{url}/pool{path}", json=body)
        problem(refused, 409, "pool-is-shared")
        whole = f"{url}/pool{path}?scope=pool"
        done = await api.client.request(method, whole, json=body)
        assert ok(done, 202 if path == "/drain" else 200)["tenants"] == 2
        await eventually(lambda: not any(pool.is_closing for pool in api.service.manager.pools()))
        ok(await api.client.put(f"{url}/pool"))


async def test_deleting_one_shared_tenant_leaves_the_pool_to_the_others(api: Api) -> None:
    acme, beta = await api.tenant("acme", "shared"), await api.tenant("beta", "shared")
    await api.value(acme, "select 1")
    assert ok(await api.client.delete(acme))["closed"] == 0
    assert await api.value(beta, "select 1") == 1
    assert ok(await api.client.get(f"{beta}/pool"))["tenants"] == 1


@pytest.mark.parametrize("value", ["-1", "301", "nan", "inf", "x", ""])
async def test_a_deadline_is_a_number_of_seconds_within_bounds(api: Api, value: str) -> None:
    url = f"/v1/tenants/acme/pool?deadline_seconds={value}"
    assert pointers(await api.client.delete(url)) == ["/query/deadline_seconds"]


def only_pool(api: Api) -> Pool:
    """The only open pool."""
    [pool] = api.service.manager.pools()
    return pool


async def test_a_drain_cut_short_by_the_shutdown_is_recorded(
    api_with: ApiWith, catalog_database: Database
) -> None:
    async with AsyncExitStack() as lease:
        async with api_with() as api:
            url = await api.tenant("acme")
            await lease.enter_async_context(lent(api, "acme"))
            ok(await api.client.post(f"{url}/pool/drain?deadline_seconds=60"), 202)
        async with catalog_database.connected() as connection:
            actions = [action for [action] in await connection.fetch("SELECT action FROM events")]
        assert {"pool.draining", "pool.evicted"} <= set(actions)
