"""Statistics over HTTP: of the service and of a tenant."""

from tests.fixtures.app import Api, ok, problem
from tests.fixtures.proxy import FaultProxy


async def test_a_tenants_statistics_count_its_leases(api: Api) -> None:
    url = await api.tenant("acme")
    for _ in range(3):
        await api.value(url, "SELECT 1")
    stats = ok(await api.client.get(f"{url}/stats"))
    assert (stats["tenant"], stats["pool"], stats["strategy"]) == ("acme", "acme", "per_tenant")
    assert (stats["pool_state"], stats["window_seconds"]) == ("ready", 300.0)
    assert (stats["connections_acquired"], stats["connections_released"]) == (3, 3)
    assert (stats["active_connections"], stats["idle_connections"]) == (0, 1)
    assert stats["wait"]["p50_ms"] is not None
    assert stats["hold"]["p99_ms"] >= stats["hold"]["p50_ms"] > 0
    assert stats["connect"]["p95_ms"] > 0
    assert stats["last_activity"].endswith("Z")


async def test_a_tenant_that_never_worked_has_zeros_and_no_percentile(api: Api) -> None:
    url = await api.tenant("acme")
    stats = ok(await api.client.get(f"{url}/stats"))
    assert (stats["pool_state"], stats["connections_acquired"]) == ("closed", 0)
    assert stats["wait"] == {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    assert (stats["created_at"], stats["last_activity"]) == (None, None)


async def test_counters_survive_the_eviction_of_the_pool(api: Api) -> None:
    url = await api.tenant("acme")
    await api.value(url, "SELECT 1")
    ok(await api.client.delete(f"{url}/pool"))
    stats = ok(await api.client.get(f"{url}/stats"))
    assert (stats["pool_state"], stats["connections_acquired"]) == ("closed", 1)
    assert (stats["connections_opened"], stats["connections_closed"]) == (1, 1)


async def test_a_shared_tenant_sees_its_own_leases_only(api: Api) -> None:
    acme, globex = await api.tenant("acme", "shared"), await api.tenant("globex", "shared")
    await api.value(acme, "SELECT 1")
    stats = ok(await api.client.get(f"{acme}/stats"))
    assert (stats["pool"], stats["connections_acquired"]) == ("shared@local", 1)
    stats = ok(await api.client.get(f"{globex}/stats"))
    assert (stats["pool"], stats["connections_acquired"]) == ("shared@local", 0)


async def test_an_unknown_tenant_has_no_statistics(api: Api) -> None:
    problem(await api.client.get("/v1/tenants/nobody/stats"), 404, "tenant-not-found")


async def test_the_service_adds_everything_up(api: Api) -> None:
    for name, strategy in (("acme", "per_tenant"), ("globex", "shared"), ("initech", "shared")):
        await api.value(await api.tenant(name, strategy), "SELECT 1")
    ok(await api.client.delete("/v1/tenants/acme/pool"))
    stats = ok(await api.client.get("/v1/stats"))
    assert stats["tenants"] == 3
    assert stats["pools"] == {"open": 1, "by_state": {"ready": 1}}
    assert stats["totals"]["connections_acquired"] == 3
    assert stats["totals"]["connections_opened"] == 2
    assert stats["totals"]["idle_connections"] == 1
    assert stats["evictions"] == {
        "idle": 0,
        "lru": 0,
        "requested": 1,
        "forced": 0,
        "deleted": 0,
        "drained": 0,
    }
    [server] = stats["servers"]
    assert (server["name"], server["state"], server["used"]) == ("local", "available", 1)
    assert 0 < server["budget"] < server["max_connections"]
    assert (server["active"], server["contended"], server["last_error"]) == (0, False, None)
    assert [item["tenant"] for item in stats["items"]] == ["acme", "globex", "initech"]


async def test_totals_do_not_fall_when_a_tenant_is_deleted(api: Api) -> None:
    for strategy in ("per_tenant", "shared"):
        url = await api.tenant(f"a-{strategy.replace('_', '-')}", strategy)
        await api.value(url, "SELECT 1")
        ok(await api.client.delete(url))
    stats = ok(await api.client.get("/v1/stats"))
    assert (stats["tenants"], stats["totals"]["connections_acquired"]) == (0, 2)


async def test_tenants_come_in_pages(api: Api) -> None:
    for name in ("acme", "globex", "initech"):
        ok(await api.client.put(f"/v1/tenants/{name}", json={}), 201)
    first = ok(await api.client.get("/v1/stats?limit=2"))
    second = ok(await api.client.get(f"/v1/stats?limit=2&cursor={first['next_cursor']}"))
    assert [item["tenant"] for item in first["items"] + second["items"]] == [
        "acme",
        "globex",
        "initech",
    ]
    assert second["next_cursor"] is None


async def test_tenants_are_filtered_by_pool_and_sorted(api: Api) -> None:
    for name, strategy in (("own", "per_tenant"), ("one", "shared"), ("two", "shared")):
        await api.tenant(name, strategy)

    async def tenants(**query: str | int) -> list[str]:
        page = ok(await api.client.get("/v1/stats", params=query))
        assert page["tenants"] == 3
        assert page["servers"][0]["active"] == 1
        assert len(page["items"]) == page["matches"] - int(query.get("offset", 0))
        return [each["tenant"] for each in page["items"]]

    async with api.service.manager.lease("two"):
        assert await tenants(pool="shared@local") == ["one", "two"]
        assert await tenants(pool="shared@local", sort="-active_connections") == ["two", "one"]
        assert await tenants(sort="active_connections") == ["one", "own", "two"]
        assert await tenants(sort="-waiting_requests", offset=1) == ["own", "two"]
        assert await tenants(search="w", sort="-wait_p99_ms") in (["own", "two"], ["two", "own"])


async def test_while_the_catalog_is_away_the_present_is_known(
    api_apart: Api, fault_proxy: FaultProxy
) -> None:
    url = await api_apart.tenant("acme")
    await fault_proxy.cut()
    await api_apart.value(url, "SELECT 1")
    assert ok(await api_apart.client.get(f"{url}/stats"))["connections_acquired"] == 1
    assert ok(await api_apart.client.get("/v1/stats"))["tenants"] == 1
