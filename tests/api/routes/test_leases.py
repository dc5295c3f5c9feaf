"""Who holds which connection, since when, and who waits for one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.fixtures.app import Api, ApiWith, ok, pointers
from tests.fixtures.keys import Keyring
from tests.fixtures.waiting import eventually

URL = "/v1/leases"


async def leases(api: Api, **parameters: Any) -> dict[str, Any]:
    return ok(await api.client.get(URL, params=parameters))


@pytest.fixture
async def small_api(api_with: ApiWith) -> AsyncIterator[Api]:
    """An application whose pools have one connection, so that callers wait for it."""
    sizes = {"per_tenant_pool_size": 1, "shared_pool_size": 1, "acquire_timeout_seconds": 60}
    async with api_with(**sizes) as api:
        yield api


@asynccontextmanager
async def callers(api: Api, tenant: str, waiting: int) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that wait for a lease until the block ends."""

    async def lease() -> None:
        async with api.service.manager.lease(tenant):
            pass

    async def all_wait() -> bool:
        return api.service.manager.tenants.state(tenant).waiting == waiting

    tasks = [asyncio.create_task(lease(), name=f"{tenant} {number}") for number in range(waiting)]
    try:
        await eventually(all_wait)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_lease_shows_who_took_it_where_and_on_which_connection(api: Api) -> None:
    await api.tenant("acme")
    task = asyncio.current_task()
    assert task is not None
    async with api.service.manager.lease("acme") as connection:
        [item] = (await leases(api))["items"]
        assert (item["state"], item["tenant"], item["pool_id"]) == ("active", "acme", "acme")
        assert (item["server"], item["position"], item["statement"]) == ("local", None, None)
        assert item["pid"] == connection.get_server_pid()
        assert item["task"] == task.get_name()
        assert __file__ in item["taken_at"]
        assert item["age_seconds"] >= 0
        assert item["since"] <= (await leases(api))["as_of"]
    empty = await leases(api)
    assert (empty["active"], empty["waiting"], empty["items"]) == (0, 0, [])


async def test_a_running_query_shows_its_request_and_its_statement_without_data(api: Api) -> None:
    url = await api.tenant("acme")
    sql = "select pg_sleep($1::float8) from (values ('secret')) as one"

    async def run() -> None:
        await api.client.post(
            f"{url}/query",
            json={"sql": sql, "params": [60]},
            headers={"X-Request-ID": "slow-1"},
        )

    async def is_shown() -> bool:
        items = (await leases(api, fields="statement"))["items"]
        return any((item["statement"] or "").startswith("select pg_sleep") for item in items)

    running = asyncio.create_task(run())
    await eventually(is_shown)
    [item] = (await leases(api))["items"]
    assert item["task"] == "request slow-1"
    assert item["statement"] == "select pg_sleep($1::float8) from (values ( …"
    await api.client.delete(f"{url}/pool?mode=force")
    await running


async def test_waiting_callers_have_their_places(small_api: Api) -> None:
    api = small_api
    await api.tenant("acme")
    await api.tenant("globex")
    async with AsyncExitStack() as stack:
        for tenant in ("acme", "globex"):
            await stack.enter_async_context(api.service.manager.lease(tenant))
            await stack.enter_async_context(callers(api, tenant, 2))
        found = await leases(api)
        assert (found["active"], found["waiting"]) == (2, 4)
        ages = [each["age_seconds"] for each in found["items"]]
        assert ages == sorted(ages, reverse=True)
        waiting = await leases(api, state="waiting", tenant="acme")
        shown = [(each["task"], each["position"], each["pid"]) for each in waiting["items"]]
        assert shown == [("acme 0", 1, None), ("acme 1", 2, None)]
        assert (waiting["active"], waiting["waiting"]) == (0, 2)
        for parameters, count in [
            ({"pool": "globex"}, 3),
            ({"server": "local"}, 6),
            ({"server": "other"}, 0),
            ({"state": "active"}, 2),
        ]:
            assert len((await leases(api, **parameters))["items"]) == count
        for order in ("-age_seconds", "age_seconds", "tenant"):
            whole = (await leases(api, sort=order, fields="tenant,since"))["items"]
            seen: list[dict[str, Any]] = []
            asked: dict[str, Any] = {"sort": order, "limit": 4}
            while True:
                page = await leases(api, **asked)
                seen += page["items"]
                if page["next_cursor"] is None:
                    break
                asked["cursor"] = page["next_cursor"]
            assert len({(each["task"], each["pid"]) for each in seen}) == 6
            assert [each["tenant"] for each in seen] == [each["tenant"] for each in whole]


@pytest.mark.parametrize(
    ("settings", "max_leases", "cause"),
    [
        ({}, 1, "max_leases"),
        ({}, None, "max_size"),
        ({"per_tenant_pool_size": 5, "budget": 1}, None, "server_budget"),
    ],
)
async def test_what_callers_wait_for_is_in_their_list_and_their_tenants_statistics(
    api_with: ApiWith, settings: dict[str, int], max_leases: int | None, cause: str
) -> None:
    sizes = {"per_tenant_pool_size": 1, "acquire_timeout_seconds": 60} | settings
    budget = sizes.pop("budget", None)
    async with api_with(**sizes) as api:
        url = await api.tenant("acme")
        declared = {"strategy": "per_tenant", "max_leases": max_leases}
        ok(await api.client.put(url, json=declared))
        if budget is not None:
            api.service.manager.servers["local"].budget.set_limit(budget)
        assert ok(await api.client.get(f"{url}/stats"))["waits_for"] is None
        async with api.service.manager.lease("acme"), callers(api, "acme", 1):
            active, waiting = (await leases(api, sort="-age_seconds"))["items"]
            assert active["waits_for"] is None
            wait = waiting["waits_for"]
            assert (wait["cause"], wait["used"], wait["limit"]) == (cause, 1, 1)
            assert ok(await api.client.get(f"{url}/stats"))["waits_for"] == wait
            [listed] = ok(await api.client.get("/v1/stats"))["items"]
            assert listed["waits_for"] == wait
            assert ok(await api.client.get(f"{url}/pool"))["waits_for"] == wait


async def test_a_key_bound_to_tenants_sees_their_leases_only(
    keyed_api: tuple[Api, Keyring],
) -> None:
    api, keys = keyed_api
    for name in ("acme", "globex"):
        await api.tenant(name, "shared")
    async with api.service.manager.lease("acme"), api.service.manager.lease("globex"):
        assert (await leases(api))["active"] == 2
        api.client.headers.update(keys.headers("bound"))
        found = await leases(api, pool="shared@local")
        assert [each["tenant"] for each in found["items"]] == ["acme"]
        assert (await leases(api, tenant="globex"))["items"] == []


async def test_invalid_parameters_are_refused(api: Api) -> None:
    for query, place in [
        ("state=idle", "state"),
        ("sort=pid", "sort"),
        ("fields=sql", "fields"),
        ("cursor=WzFd", "cursor"),
        ("pool=A", "pool"),
    ]:
        assert pointers(await api.client.get(f"{URL}?{query}")) == [f"/query/{place}"]


async def test_who_waits_until_a_pool_can_be_opened_is_seen_everywhere(api_with: ApiWith) -> None:
    async with api_with(per_tenant_max_pools=1, acquire_timeout_seconds=60) as api:
        for tenant in ("acme", "globex"):
            await api.tenant(tenant)

        async def lease() -> None:
            async with api.service.manager.lease("globex"):
                pass

        async def waits() -> bool:
            waiting: int = (await leases(api, state="waiting"))["waiting"]
            return waiting == 2

        async with api.service.manager.lease("acme"):
            tasks = [asyncio.create_task(lease(), name=f"globex {n}") for n in (0, 1)]
            await eventually(waits)
            found = await leases(api, tenant="globex")
            shown = [(each["task"], each["position"], each["pid"]) for each in found["items"]]
            assert shown == [("globex 0", 1, None), ("globex 1", 2, None)]
            assert {each["server"] for each in found["items"]} == {"local"}
            assert (await leases(api, pool="acme"))["waiting"] == 0
            stats = ok(await api.client.get("/v1/stats"))
            assert stats["totals"]["waiting_requests"] == 2
            by_tenant = {each["tenant"]: each for each in stats["items"]}
            assert by_tenant["globex"]["waiting_requests"] == 2
            assert by_tenant["acme"]["waiting_requests"] == 0
            own = ok(await api.client.get("/v1/tenants/globex/stats"))
            assert (own["waiting_requests"], own["pool_state"]) == (2, "closed")
            wait = own["waits_for"]
            assert (wait["cause"], wait["used"], wait["limit"]) == ("pool_limit", 1, 1)
            assert "POOLKEEPER_PER_TENANT_MAX_POOLS" in wait["detail"]
            assert by_tenant["globex"]["waits_for"] == wait
            assert [each["waits_for"] for each in found["items"]] == [wait, wait]
            [pool] = ok(await api.client.get("/v1/pools?search=globex"))["items"]
            assert (pool["waiting"], pool["open"], pool["state"]) == (2, False, "closed")
            assert pool["waits_for"] == wait
            assert ok(await api.client.get("/v1/tenants/globex"))["pool"]["waiting"] == 2
            server = ok(await api.client.get("/v1/servers/local"))
            waiting = {each["pool_id"]: each["waiting"] for each in server["pools"]}
            assert waiting == {"acme": 0, "globex": 2}
            await api.service.exposition.prepare(await api.service.snapshots.publish())
            metrics = (await api.client.get("/metrics")).text
            group = '{server="local",strategy="per_tenant"}'
            assert f"db_client_connection_pending_requests{group} 2.0" in metrics
        await asyncio.gather(*tasks)
        own = ok(await api.client.get("/v1/tenants/globex/stats"))
        assert (own["waiting_requests"], own["pool_limit_waits"]) == (0, 2)
        assert own["max_wait_time_ms"] > 0
