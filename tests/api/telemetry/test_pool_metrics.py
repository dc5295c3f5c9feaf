"""The metrics that Prometheus reads."""

import asyncio

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_families,
)
from prometheus_client.parser import text_string_to_metric_families as families

from app import __version__
from app.api.http.client_connections import ClientConnections, ClientLimits, CloseReason
from app.domain.errors import PoolTimeout
from tests.fixtures.app import Api, ApiWith, ok
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(api: Api) -> Samples:
    """Every sample of a scrape after a poll, by name and labels."""
    await api.service.exposition.prepare(await api.service.snapshots.publish())
    response = await api.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(response.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


OWN = {"server": "local", "strategy": "per_tenant"}
SHARED = {"server": "local", "strategy": "shared"}


async def test_connections_are_counted_by_server_and_strategy(api: Api) -> None:
    for name in ("acme", "globex"):
        await api.value(await api.tenant(name), "SELECT 1")
    await api.value(await api.tenant("initech", "shared"), "SELECT 1")
    async with api.service.manager.lease("acme"):
        samples = await scraped(api)
    count = "db_client_connection_count"
    assert value(samples, count, state="used", **OWN) == 1
    assert value(samples, count, state="idle", **OWN) == 1
    assert value(samples, count, state="idle", **SHARED) == 1
    assert value(samples, "db_client_connection_max", **OWN) == 10
    assert value(samples, "db_client_connection_max", **SHARED) == 20
    assert value(samples, "db_client_connection_idle_max", **OWN) == 10
    assert value(samples, "db_client_connection_idle_min", **OWN) == 0
    assert value(samples, "db_client_connection_pending_requests", **OWN) == 0
    assert value(samples, "poolkeeper_pools", state="ready", **OWN) == 2
    assert value(samples, "poolkeeper_leases_total", **OWN) == 3
    assert value(samples, "poolkeeper_leases_total", **SHARED) == 1
    assert value(samples, "poolkeeper_connections_opened_total", **SHARED) == 1


async def test_callers_that_wait_are_counted_by_what_they_wait_for(api: Api) -> None:
    acme = await api.tenant("acme")
    ok(await api.client.put(f"{acme}/pool", json={"max_size": 1}), 201)
    waiting = "poolkeeper_callers_waiting"
    async with api.service.manager.lease("acme"):
        caller = asyncio.create_task(api.value(acme, "SELECT 1"), name="caller")
        await eventually(lambda: api.service.manager.pool_metrics("acme").waiting_requests)
        samples = await scraped(api)
    await caller
    assert value(samples, waiting, server="local", cause="max_size") == 1
    assert value(samples, waiting, server="local", cause="server_budget") == 0
    assert value(await scraped(api), waiting, server="local", cause="max_size") == 0


async def test_timeouts_are_counted(api: Api) -> None:
    url = await api.tenant("acme")
    ok(await api.client.put(f"{url}/pool", json={"max_size": 1}), 201)
    lease = api.service.manager.lease
    async with lease("acme"):
        with pytest.raises(PoolTimeout):
            async with lease("acme", timeout=0.01):
                pass
    samples = await scraped(api)
    assert value(samples, "db_client_connection_timeouts_total", **OWN) == 1
    assert value(samples, "poolkeeper_lease_wait_seconds_total", **OWN) >= 0


async def test_an_evicted_pool_leaves_its_counters(api: Api) -> None:
    """A gauge may vanish; to Prometheus a counter that falls looks like a burst."""
    url = await api.tenant("acme")
    await api.value(url, "SELECT 1")
    ok(await api.client.delete(f"{url}/pool"))
    ok(await api.client.delete(url))
    samples = await scraped(api)
    assert ("poolkeeper_pools", frozenset({**OWN, "state": "ready"}.items())) not in samples
    assert value(samples, "poolkeeper_leases_total", **OWN) == 1
    assert value(samples, "poolkeeper_evictions_total", reason="requested") == 1
    assert value(samples, "poolkeeper_evictions_total", reason="lru") == 0


async def test_budgets_the_poll_and_the_version_have_metrics(api: Api) -> None:
    await api.value(await api.tenant("acme"), "SELECT 1")
    await api.service.poller.run_once()
    samples = await scraped(api)
    connections = "poolkeeper_server_connections"
    assert value(samples, connections, server="local", kind="open") == 1
    assert value(samples, connections, server="local", kind="nodes") == 0
    assert value(samples, connections, server="local", kind="max") == 200
    assert 1 < value(samples, connections, server="local", kind="budget") < 200
    assert value(samples, "poolkeeper_server_up", server="local") == 1
    assert value(samples, "poolkeeper_catalog_up") == 1
    assert value(samples, "poolkeeper_poll_age_seconds") >= 0
    assert value(samples, "poolkeeper_poll_duration_seconds") > 0
    assert value(samples, "poolkeeper_recommendations_total") == 0
    assert value(samples, "poolkeeper_recommendations_open") == 0
    assert value(samples, "poolkeeper_build_info", version=__version__) == 1


def histogram(samples: Samples, name: str, **labels: str) -> tuple[list[float], float, float]:
    """The cumulative counts of its buckets, its count, and its sum."""
    buckets = sorted(
        (float(dict(key[1])["le"]), count)
        for key, count in samples.items()
        if key[0] == f"{name}_bucket" and labels.items() <= dict(key[1]).items()
    )
    total = value(samples, f"{name}_count", **labels)
    assert buckets[-1] == (float("inf"), total)
    return [count for _, count in buckets], total, value(samples, f"{name}_sum", **labels)


async def test_durations_are_counted_since_the_start_whatever_was_evicted(api: Api) -> None:
    acme, globex = await api.tenant("acme"), await api.tenant("globex", "shared")
    for url in (acme, acme, globex):
        await api.value(url, "SELECT 1 FROM pg_sleep(0.02)")
    for is_deleted in (False, True):
        if is_deleted:
            ok(await api.client.delete(acme))
        samples = await scraped(api)
        for name, count, least in (("use", 2, 0.04), ("wait", 2, 0), ("create", 1, 0.0001)):
            family = f"db_client_connection_{name}_time_seconds"
            buckets, total, seconds = histogram(samples, family, **OWN)
            assert (buckets, total) == (sorted(buckets), count)
            assert seconds > least
        buckets, total, _ = histogram(samples, "db_client_connection_use_time_seconds", **SHARED)
        assert total == 1
        # A lease of 20 ms or more is in no bucket up to 15.6 ms.
        bucket = "db_client_connection_use_time_seconds_bucket"
        assert value(samples, bucket, le="0.015625", **OWN) == 0


async def test_only_tenants_with_the_most_demand_have_their_own_series(api_with: ApiWith) -> None:
    async with api_with(metrics_tenants=1, metrics_tenants_always=["initech"]) as api:
        for name in ("acme", "globex", "hooli", "initech"):
            await api.value(await api.tenant(name), "SELECT 1")
        async with api.service.manager.lease("globex"):
            samples = await scraped(api)
        named = {dict(labels).get("tenant") for _, labels in samples} - {None}
        assert named == {"globex", "initech", "_other"}
        connections = "poolkeeper_tenant_connections"
        assert value(samples, connections, tenant="globex", state="used") == 1
        assert value(samples, connections, tenant="_other", state="idle") == 2
        assert value(samples, f"{connections}_max", tenant="globex") == 5
        assert value(samples, f"{connections}_max", tenant="_other") == 10
        assert value(samples, "poolkeeper_tenant_leases_total", tenant="globex") == 2
        assert value(samples, "poolkeeper_tenant_leases_total", tenant="_other") == 2
        assert value(samples, "poolkeeper_tenant_wait_p99_seconds", tenant="_other") > 0
        assert value(samples, "poolkeeper_metrics_tenants_omitted") == 2
        assert value(samples, "poolkeeper_tenants") == 4


async def test_a_poll_is_rendered_once_however_many_scrape_it(api: Api) -> None:
    exposition, usual = api.service.exposition, choose_encoder("")
    await exposition.prepare(await api.service.snapshots.publish())
    first, second = await exposition.render(*usual), await exposition.render(*usual)
    assert first is second
    await exposition.prepare(await api.service.snapshots.publish())
    assert await exposition.render(*usual) is not first


async def test_a_stale_snapshot_is_replaced_at_the_next_scrape(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.service.snapshots.publish()
    await api.value(await api.tenant("acme"), "SELECT 1")
    monkeypatch.setattr(api.app.state.response_cache, "_stale_after", 0)
    assert "poolkeeper_tenants 1.0" in (await api.client.get("/metrics")).text


async def test_a_catalog_that_is_away_shows(api_apart: Api, fault_proxy: FaultProxy) -> None:
    await fault_proxy.cut()
    await api_apart.client.get("/readyz")
    assert value(await scraped(api_apart), "poolkeeper_catalog_up") == 0


async def test_scrapers_that_ask_for_openmetrics_get_it(api: Api) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    response = await api.client.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in open_families(response.text)}  # type: ignore[no-untyped-call]
    assert {"db_client_connection_timeouts", "poolkeeper_build_info"} <= names


async def test_connections_of_clients_are_counted_where_there_are_any(api: Api) -> None:
    limits = ClientLimits()
    api.app.state.clients = clients = ClientConnections(limits, lambda: 500)
    clients.closed[CloseReason.EVICTED] = 3
    samples = await scraped(api)
    assert value(samples, "poolkeeper_http_connections", kind="max") == 500
    assert value(samples, "poolkeeper_http_connections", kind="serving") == 0
    assert value(samples, "poolkeeper_http_connections_closed_total", reason="evicted") == 3
