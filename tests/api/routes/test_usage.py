"""Who used connections for how long, over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.history import PoolSample
from tests.catalog.values import NOON, sample
from tests.fixtures.app import Api, ApiWith, ok, pointers, problem
from tests.fixtures.keys import Keyring
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually

URL = "/v1/usage"
FROM, TO = NOON - timedelta(hours=12), NOON + timedelta(hours=12)
YESTERDAY = {"from": FROM.isoformat(), "to": TO.isoformat()}


def used(subject: str, held: float, seconds: float = 0.0) -> PoolSample:
    return sample(subject, seconds, connection_seconds=held, acquired=2, timeouts=1)


async def usage(api: Api, **parameters: Any) -> dict[str, Any]:
    return ok(await api.client.get(URL, params={**YESTERDAY, **parameters}))


async def test_who_used_the_most_yesterday(api: Api) -> None:
    await api.remember(used("acme", 1000), used("globex", 3000), used("acme", 320, 3600))
    found = await usage(api)
    assert (found["from"], found["to"]) == ("2026-07-14T00:00:00Z", "2026-07-15T00:00:00Z")
    assert found["covered_from"] == "2026-07-14T12:00:00Z"
    assert found["covered_to"] == found["to"]
    totals = {"groups": 2, "connection_seconds": 4320.0, "leases": 6, "timeouts": 3}
    assert found["totals"] == totals
    first, second = found["items"]
    assert first == {
        "group": "globex",
        "tenants": 1,
        "connection_seconds": 3000.0,
        "mean_connections": pytest.approx(3000 / 43_200),
        "share": pytest.approx(3000 / 4320),
        "leases": 2,
        "timeouts": 1,
    }
    assert (second["group"], second["connection_seconds"]) == ("acme", 1320.0)
    assert found["next_cursor"] is None


async def test_pages_cover_the_same_period_although_time_goes_on(api: Api) -> None:
    await api.remember(*(used(f"t{number}", number % 2) for number in range(5)))
    items = []
    parameters: dict[str, Any] = {"limit": 2, "fields": "group", "from": FROM.isoformat()}
    periods = set()
    while True:
        page = ok(await api.client.get(URL, params=parameters))
        items += page["items"]
        periods.add((page["from"], page["to"], page["covered_to"]))
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert sorted(item["group"] for item in items) == ["t0", "t1", "t2", "t3", "t4"]
    assert all(list(item) == ["group"] for item in items)
    assert len(periods) == 1


async def test_groups_are_pools_servers_and_labels(api: Api) -> None:
    await api.client.put(
        "/v1/tenants/acme", json={"strategy": "per_tenant", "labels": {"plan": "gold"}}
    )
    await api.client.put("/v1/tenants/globex", json={"strategy": "shared"})
    await api.remember(used("acme", 1), used("globex", 2), used("gone", 4))
    for group_by, expected in [
        ("pool", {"acme": 1, "shared@local": 2, None: 4}),
        ("server", {"local": 3, None: 4}),
        ("label:plan", {"gold": 1, None: 6}),
    ]:
        found = await usage(api, group_by=group_by)
        assert found["group_by"] == group_by
        assert {each["group"]: each["connection_seconds"] for each in found["items"]} == expected


async def test_what_a_tenant_really_used_survives_a_restart(api_with: ApiWith) -> None:
    """The service stops before the next poll."""
    async with api_with() as api:
        await api.tenant("acme")
        async with api.service.manager.lease("acme") as connection:
            await connection.execute("SELECT pg_sleep(0.1)")
    async with api_with() as api:
        await eventually(lambda: api.service.poller.poll_count)
        # As if the minute of that lease had ended.
        api.service.poller.stored_until = datetime.now(UTC) + timedelta(minutes=1)
        start = datetime.now(UTC) - timedelta(hours=1)
        later = {"from": start.isoformat(), "to": (start + timedelta(hours=2)).isoformat()}
        [item] = ok(await api.client.get(URL, params=later))["items"]
        assert (item["group"], item["leases"]) == ("acme", 1)
        assert item["connection_seconds"] >= 0.1


async def test_a_key_bound_to_tenants_sees_their_use_only(
    keyed_api: tuple[Api, Keyring],
) -> None:
    api, keys = keyed_api
    for name in ("acme", "globex"):
        await api.client.put(f"/v1/tenants/{name}", json={"strategy": "shared"})
    await api.remember(used("acme", 1), used("globex", 2), used("shared@local", 3))
    api.client.headers.update(keys.headers("bound"))
    for group_by, group in [("tenant", "acme"), ("pool", "shared@local"), ("server", "local")]:
        found = await usage(api, group_by=group_by)
        assert [each["group"] for each in found["items"]] == [group]
        assert found["totals"]["connection_seconds"] == 1


async def test_invalid_parameters_are_refused(api: Api) -> None:
    for query, place in [
        ("group_by=strategy", "group_by"),
        ("group_by=label:", "group_by"),
        ("group_by=label:%00", "group_by"),
        ("sort=share", "sort"),
        ("fields=tenant", "fields"),
        ("from=2026-07-14T12:00:00Z&to=2026-07-14T12:00:00Z", "to"),
        ("from=yesterday", "from"),
        ("cursor=WzFd", "cursor"),
    ]:
        assert pointers(await api.client.get(f"{URL}?{query}")) == [f"/query/{place}"]
    assert (await usage(api))["items"] == []
    await api.remember(used("acme", 1), used("globex", 2))
    cursor = (await usage(api, limit=1))["next_cursor"]
    other = await api.client.get(URL, params={"sort": "-leases", "cursor": cursor})
    assert pointers(other) == ["/query/cursor"]


async def test_without_the_catalog_there_is_no_report(
    api_apart: Api, fault_proxy: FaultProxy
) -> None:
    await fault_proxy.cut()
    problem(await api_apart.client.get(URL), 503, "catalog-unavailable")
