"""The catalog or a server is away: what continues, what is refused, what recovers."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.fixtures.app import Api, ok, problem, serving
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.reporting import entry, reporting_node
from tests.fixtures.waiting import eventually


@dataclass(frozen=True, slots=True)
class Proxied:
    """An application that reaches its catalog and its server through proxies."""

    api: Api
    catalog: FaultProxy
    server: FaultProxy


@pytest.fixture
async def proxied(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> AsyncIterator[Proxied]:
    """Both work at the beginning."""
    async with (
        FaultProxy(database.host, database.port) as to_catalog,
        FaultProxy(database.host, database.port) as to_server,
        serving(
            replace(database, port=to_server.port),
            replace(catalog_database, port=to_catalog.port),
            tmp_path,
        ) as api,
    ):
        yield Proxied(api, to_catalog, to_server)
        await to_catalog.pass_through()
        await to_server.pass_through()


async def gone(proxy: FaultProxy) -> None:
    await proxy.cut()


async def test_without_the_catalog_what_is_desired_cannot_change(proxied: Proxied) -> None:
    client = proxied.api.client
    acme = await proxied.api.tenant("acme")
    await client.put("/v1/tenants/beta", json={})
    ok(await client.post(f"{acme}/credentials", json={"name": "web"}), 201)
    ok(await client.put("/v1/nodes/edge", json={}), 201)
    await gone(proxied.catalog)
    for method, url, body in [
        ("PUT", "/v1/tenants/new", {}),
        ("PUT", acme, {"weight": 2}),
        ("DELETE", acme, None),
        ("POST", "/v1/tenants/beta/provision", None),
        ("PUT", f"{acme}/pool", {"max_size": 2}),
        ("POST", f"{acme}/credentials", {"name": "jobs"}),
        ("DELETE", f"{acme}/credentials/web", None),
        ("PUT", "/v1/nodes/other", {}),
        ("POST", "/v1/nodes/edge/pause", None),
        ("DELETE", "/v1/nodes/edge", None),
    ]:
        refused = await client.request(method, url, json=body)
        problem(refused, 503, "catalog-unavailable")
        assert refused.headers["retry-after"]
    assert ok(await client.get(acme))["weight"] == 1
    shown = ok(await client.get(f"{acme}/credentials"))["items"]
    assert [each["name"] for each in shown] == ["web"]


async def test_without_the_catalog_reads_are_stale_and_pools_go_on(proxied: Proxied) -> None:
    api, client = proxied.api, proxied.api.client
    acme = await api.tenant("acme")
    await client.put(f"{acme}/pool", json={"min_size": 1})
    await gone(proxied.catalog)
    problem(await client.put(acme, json={"weight": 2}), 503, "catalog-unavailable")
    for url in (acme, f"{acme}/pool"):
        assert ok(await client.get(url))["stale"] is True
    for url in ("/v1/tenants", "/v1/pools"):
        assert [item["stale"] for item in ok(await client.get(url))["items"]] == [True]
    assert await api.value(acme, "select 1") == 1
    assert ok(await client.post(f"{acme}/pool/check"))["failed"] == 0
    assert ok(await client.post(f"{acme}/pool/recycle"))["connections"] == 1
    assert ok(await client.post(f"{acme}/pool/pause"))["state"] == "paused"
    assert ok(await client.post(f"{acme}/pool/resume"))["state"] == "ready"
    assert ok(await client.post("/v1/pools/evict-expired"))["evicted"] == []
    assert ok(await client.delete(f"{acme}/pool"))["reason"] == "requested"


async def test_a_catalog_that_takes_no_writes_is_down_until_it_takes_one(
    api: Api, catalog_database: Database
) -> None:
    """Reads reach it all the time: they must not hide that nothing is stored."""
    client = api.client
    acme = await api.tenant("acme")

    async def set_read_only(value: str) -> None:
        setting = f"ALTER DATABASE {catalog_database.database} SET default_transaction_read_only"
        async with catalog_database.connected() as admin:
            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute(f"{setting} = {value}")
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE '% catalog'"
            )

    async def shown() -> tuple[bool, str, float]:
        """The check `catalog`, and the metric, after a read that works."""
        ok(await client.get("/v1/events"))
        checks = ok(await client.get("/readyz"))["checks"]
        [check] = [each for each in checks if each["name"] == "catalog"]
        metrics = (await client.get("/metrics")).text.splitlines()
        [sample] = [line for line in metrics if line.startswith("poolkeeper_catalog_up ")]
        return check["ok"], check["detail"], float(sample.split()[-1])

    await set_read_only("on")
    problem(await client.put(acme, json={"weight": 2}), 503, "catalog-unavailable")
    assert ok(await client.get(acme))["stale"] is False  # as after each read: nothing is missing
    planned = ok(await client.put(f"{acme}?dry_run=true", json={"weight": 2}))
    assert "takes no writes" in planned["warnings"][0]

    async def is_down() -> bool:
        """What is shown is at most a second old."""
        is_ok, detail, up = await shown()
        why = "The catalog cannot be used: it takes no writes ("
        return not is_ok and detail.startswith(why) and up == 0.0

    async def is_up() -> bool:
        return await shown() == (True, "The catalog responds.", 1.0)

    await eventually(is_down)
    await set_read_only("off")
    ok(await client.put(acme, json={"strategy": "per_tenant", "weight": 2}))
    await eventually(is_up)


async def test_what_was_done_without_the_catalog_is_stored_when_it_is_back(
    proxied: Proxied,
) -> None:
    api, client = proxied.api, proxied.api.client
    acme = await api.tenant("acme")
    await client.put(f"{acme}/pool", json={})
    await gone(proxied.catalog)
    ok(await client.post(f"{acme}/pool/recycle"))
    ok(await client.post(f"{acme}/pool/pause"))
    await proxied.catalog.pass_through()

    async def stored() -> bool:
        await api.service.reconciler.run_once()
        return not ok(await client.get(f"{acme}/pool"))["stale"]

    await eventually(stored)
    events = ok(await client.get("/v1/events?tenant=acme"))["items"]
    assert "pool.recycled" in [event["action"] for event in events]
    [desired] = await api.service.catalog.pools.load()
    assert desired.paused


async def test_a_lost_server_is_reported_at_once_and_recovers_by_itself(
    proxied: Proxied,
) -> None:
    api, client = proxied.api, proxied.api.client
    acme, beta = await api.tenant("acme"), await api.tenant("beta")
    assert await api.value(acme, "select 1") == 1
    await gone(proxied.server)
    for url in (acme, beta):
        details = problem(await api.query(url, "select 1"), 503, "server-unavailable")
        assert details["retryable"] is True

    async def lost() -> bool:
        shown = ok(await client.get("/v1/servers/local"))
        return (shown["state"], bool(shown["last_error"])) == ("unavailable", True)

    await eventually(lost)
    problem(await client.post(f"{beta}/provision"), 503, "server-unavailable")
    wished = ok(await client.put(f"{beta}/pool", json={"min_size": 1}), 201)
    assert (wished["open"], wished["size"]) == (True, 0)
    assert ok(await client.get(acme))["stale"] is False

    await proxied.server.pass_through()

    async def heals() -> bool:
        return (await api.query(acme, "select 1")).status_code == 200

    await eventually(heals)
    await eventually(lambda: _size(api, "beta") == 1)
    shown = ok(await client.get("/v1/servers/local"))
    assert (shown["state"], shown["last_error"]) == ("available", None)


async def test_a_server_without_new_connections_keeps_serving_and_reports_it(
    proxied: Proxied,
) -> None:
    api, client = proxied.api, proxied.api.client
    acme, beta = await api.tenant("acme"), await api.tenant("beta")
    assert await api.value(acme, "select 1") == 1
    proxied.server.refuse()
    details = problem(await api.query(beta, "select 1"), 503, "server-unavailable")
    assert "cannot be reached" in details["detail"]

    async def shown() -> bool:
        server = ok(await client.get("/v1/servers/local"))
        assert server["state"] == "available"
        return bool(server["last_error"])

    await eventually(shown)
    [check] = [
        each for each in ok(await client.get("/readyz"))["checks"] if each["name"] == "servers"
    ]
    assert not check["ok"]
    assert check["detail"].startswith("0 of 1 open new connections.")
    assert "opening no new connections: local: The server cannot be reached" in check["detail"]
    assert await api.value(acme, "select 1") == 1

    await proxied.server.pass_through()

    async def heals() -> bool:
        assert ok(await client.get("/v1/servers/local"))["state"] == "available"
        return (await api.query(beta, "select 1")).status_code == 200

    await eventually(heals)


async def test_a_tenant_deleted_without_its_server_is_finished_when_that_is_back(
    proxied: Proxied,
) -> None:
    api, client = proxied.api, proxied.api.client
    acme = await api.tenant("acme")
    await api.value(acme, "select 1")
    await gone(proxied.server)
    problem(await api.query(acme, "select 1"), 503, "server-unavailable")
    assert ok(await client.delete(acme))["login_disabled"] is False
    assert ok(await client.get(acme))["state"] == "deleting"
    problem(await client.put(acme, json={}), 409, "tenant-deleting")
    problem(await client.put(f"{acme}/pool", json={}), 409, "tenant-deleting")
    problem(await client.post(f"{acme}/provision"), 409, "tenant-deleting")
    problem(await api.query(acme, "select 1"), 409, "tenant-deleting")
    await proxied.server.pass_through()

    async def finished() -> bool:
        await api.service.reconciler.run_once()
        return (await client.get(acme)).status_code == 404

    await eventually(finished)


def _size(api: Api, pool_id: str) -> int:
    pool = api.service.manager.find(pool_id)
    return pool.metrics.total_connections if pool else 0


async def test_connections_that_a_lost_server_may_still_have_are_shown_as_lost(
    proxied: Proxied,
) -> None:
    client = proxied.api.client
    acme = await proxied.api.tenant("acme")
    ok(await client.put(f"{acme}/pool", json={"min_size": 2}), 201)
    servers = proxied.api.service.manager.servers

    async def is_open() -> bool:
        # A connection that is logging in when the server goes is not lost: it never was a back-end.
        return bool(ok(await client.get(f"{acme}/pool"))["idle"] == 2)

    await eventually(is_open)
    await gone(proxied.server)

    async def is_lost() -> bool:
        shown = ok(await client.get("/v1/servers/local"))
        used, lost = shown["budget"]["used"], shown["budget"]["lost"]
        return bool(shown["state"] == "unavailable" and used == lost >= 2)

    await eventually(is_lost)
    await proxied.api.service.snapshots.publish()
    [server] = ok(await client.get("/v1/stats"))["servers"]
    assert server["used"] == server["lost"] >= 2
    await proxied.server.pass_through()
    await eventually(lambda: servers["local"].is_available and servers["local"].lost == 0)


async def test_a_node_says_that_its_server_is_away(proxied: Proxied) -> None:
    api, client = proxied.api, proxied.api.client
    await api.tenant("acme")
    async with reporting_node(client, entry("acme")):

        async def problem_of_it() -> str | None:
            shown = ok(await client.get("/v1/nodes/edge"))
            await api.service.snapshots.publish()
            troubled = ok(await client.get("/v1/stats"))["nodes"]["troubled"]
            text: str | None = shown["problem"]
            assert (text is not None) == (troubled == 1)
            return text

        assert await problem_of_it() is None
        await gone(proxied.server)
        api.service.manager.servers["local"].recheck()
        await eventually(lambda: not api.service.manager.servers["local"].is_available)
        assert (await problem_of_it() or "").startswith("Server local is unavailable: ")
        await proxied.server.pass_through()
        await eventually(lambda: api.service.manager.servers["local"].is_available)
        assert await problem_of_it() is None
