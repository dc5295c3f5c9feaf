"""The life of a tenant under each strategy, from its declaration to its deletion."""

import pytest

from tests.fixtures.app import Api, ok, problem
from tests.fixtures.waiting import eventually

STRATEGIES = pytest.mark.parametrize("strategy", ["shared", "per_tenant", "per_database"])


@STRATEGIES
async def test_a_tenant_lives_from_its_declaration_to_its_deletion(api: Api, strategy: str) -> None:
    url, is_shared = await api.tenant("acme", strategy), strategy == "shared"
    pool_id, whole = ("shared@local", "?scope=pool") if is_shared else ("acme", "")
    shown = ok(await api.client.get(url))
    assert (shown["state"], shown["query_allowed"], shown["pool"]) == ("provisioned", True, None)

    opened = ok(await api.client.put(f"{url}/pool{whole}", json={"max_size": 3}), 201)
    assert (opened["pool_id"], opened["state"], opened["size"]) == (pool_id, "ready", 1)

    who = ok(await api.query(url, "select current_user, current_database()"))["rows"][0]
    isolation = ok(await api.client.get(url))["isolation"]
    assert who == [isolation["role"], isolation["database"]]

    stats = ok(await api.client.get(f"{url}/stats"))
    assert stats["connections_acquired"] == stats["connections_released"] == 1
    assert ok(await api.client.get(url))["pool"]["idle"] == 1

    gone = ok(await api.client.delete(f"{url}/pool{whole}"))
    assert (gone["pool_id"], gone["closed"], gone["cut"]) == (pool_id, 1, 0)
    assert ok(await api.client.get(f"{url}/pool"))["open"] is False
    assert ok(await api.client.get(f"{url}/stats"))["connections_acquired"] == 1

    assert await api.value(url, "select 1") == 1
    deleted = ok(await api.client.delete(url))
    assert (deleted["closed"], deleted["login_disabled"]) == (0 if is_shared else 1, True)
    problem(await api.client.get(f"{url}/pool"), 404, "tenant-not-found")
    actions = [item["action"] for item in ok(await api.client.get("/v1/events"))["items"]]
    assert actions[0] == "tenant.deleted"
    assert actions[-2:] == ["tenant.provisioned", "tenant.created"]


@STRATEGIES
async def test_one_tenants_data_is_not_anothers(api: Api, strategy: str) -> None:
    acme, beta = await api.tenant("acme", strategy), await api.tenant("beta", strategy)
    seen = "select current_setting('app.tenant_id', true)"
    if strategy == "shared":
        assert [await api.value(url, seen) for url in (acme, beta)] == ["acme", "beta"]
        return
    create = "create table notes as select 'secret' as text"
    ok(await api.query(acme, create, read_only=False))
    assert await api.value(acme, "select text from notes") == "secret"
    refused = problem(await api.query(beta, "select text from notes"), 422, "statement-failed")
    assert refused["sqlstate"] == "42P01"
    refused = problem(
        await api.query(beta, "select text from tenant_acme.notes"), 422, "statement-failed"
    )
    assert refused["sqlstate"] in ("42501", "42P01")


async def test_a_hundred_queries_leave_as_many_connections_as_the_pools_have(api: Api) -> None:
    urls = [await api.tenant(f"t{number}", "per_tenant") for number in range(4)]
    for _ in range(25):
        for url in urls:
            await api.value(url, "select 1")
    server = api.service.manager.servers["local"]
    await eventually(lambda: server.budget.used == len(urls))
