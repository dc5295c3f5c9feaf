"""Past statistics over HTTP: of a tenant and of a pool, from polls, minutes and hours."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app.domain.history import SERVICE, on_nodes
from tests.catalog.values import NOON, sample
from tests.fixtures.app import Api, ApiWith, ok, pointers, problem
from tests.fixtures.keys import Keyring
from tests.fixtures.proxy import FaultProxy

PAST = "/v1/tenants/acme/stats/history"
REFUSED = [
    ("from=2026-07-14T12:00:00Z&to=2026-07-14T12:00:00Z", "to"),
    ("from=2026-07-14T12:00:00Z&to=2026-07-14T11:00:00Z", "to"),
    ("from=2026-07-14T12:00:00Z&to=2026-07-14T12:33:21Z&step_seconds=1", "step_seconds"),
    ("step_seconds=0", "step_seconds"),
    ("step_seconds=1.5", "step_seconds"),
    ("from=2026-07-14", "from"),
    ("to=0001-01-01T00:00:00Z", "to"),
]


async def past(api: Api, minutes: int, url: str = PAST, *, step: int = 60) -> dict[str, Any]:
    """That many minutes from noon on."""
    until = NOON + timedelta(minutes=minutes)
    asked: dict[str, str | int] = {
        "from": NOON.isoformat(),
        "to": until.isoformat(),
        "step_seconds": step,
    }
    return ok(await api.client.get(url, params=asked))


async def test_the_past_comes_in_steps(api: Api) -> None:
    await api.tenant("acme")
    polls = {0: 0, 30: 30, 60: 30, 150: 90}
    await api.remember(*(sample("acme", at, acquired=grown) for at, grown in polls.items()))
    history = await past(api, 3)
    assert (history["tenant"], history["pool_id"]) == ("acme", "acme")
    assert (history["step_seconds"], history["resolution"]) == (60, "minute")
    assert (history["from"], history["to"]) == ("2026-07-14T12:00:00Z", "2026-07-14T12:03:00Z")
    steps = [(step["at"], step["samples"], step["acquired"]) for step in history["items"]]
    assert steps == [
        ("2026-07-14T12:00:00Z", 2, 30),
        ("2026-07-14T12:01:00Z", 1, 30),
        ("2026-07-14T12:02:00Z", 1, 90),
    ]


async def test_what_nodes_reported_is_beside_it_and_marked_as_estimated(api: Api) -> None:
    await api.tenant("acme")
    await api.remember(sample("acme", acquired=1), sample("shared@local", acquired=2))
    of_nodes = {on_nodes("acme"): 30, on_nodes(SERVICE): 50, on_nodes("other"): 20}
    await api.remember(*(sample(name, acquired=each) for name, each in of_nodes.items()))
    for url, expected in {
        PAST: 30,
        "/v1/pools/acme/stats/history": 30,
        "/v1/stats/history": 50,
    }.items():
        [point] = (await past(api, 1, url))["on_nodes"]
        assert (point["acquired"], point["estimated"]) == (expected, True)
    assert (await past(api, 1, "/v1/pools/shared@local/stats/history"))["on_nodes"] == []
    query = f"from={NOON:%Y-%m-%dT%H:%M:%SZ}&to=2026-07-14T12:01:00Z&fields=at,acquired"
    sparse = ok(await api.client.get(f"{PAST}?{query}"))
    at = "2026-07-14T12:00:00Z"
    assert sparse["items"] == [{"at": at, "acquired": 1}]
    assert sparse["on_nodes"] == [{"at": at, "acquired": 30}]
    # They do not count as the tenant's use of this service's own pools.
    period = {"from": NOON.isoformat(), "to": (NOON + timedelta(minutes=1)).isoformat()}
    usage = ok(await api.client.get("/v1/usage", params=period))["items"]
    assert [each["leases"] for each in usage] == [1]


async def test_the_response_names_its_resolution(api: Api) -> None:
    await api.tenant("acme")
    await api.remember(*(sample("acme", second) for second in range(0, 3600, 30)))
    made_of = {}
    for step in (30, 90, 120, 3600):
        made_of[step] = (await past(api, 60, step=step))["resolution"]
    assert made_of == {30: "raw", 90: "raw", 120: "minute", 3600: "hour"}


async def test_history_covers_the_last_hour_by_default(api: Api) -> None:
    await api.tenant("acme")
    now = datetime.now(UTC)
    recent = replace(sample("acme"), at=now - timedelta(minutes=30))
    ancient = replace(sample("acme"), at=now - timedelta(minutes=90))
    await api.remember(recent, ancient)
    history = ok(await api.client.get(PAST))
    assert [step["samples"] for step in history["items"]] == [1]


async def test_a_poll_is_in_the_past_at_once(api: Api) -> None:
    await api.value(await api.tenant("acme"), "SELECT 1")
    await api.service.poller.run_once()
    history = ok(await api.client.get(f"{PAST}?step_seconds=3600"))
    assert sum(step["samples"] for step in history["items"]) == 1
    assert sum(step["acquired"] for step in history["items"]) == 1


async def test_a_shared_pool_has_a_past_of_its_own(api: Api) -> None:
    for name in ("acme", "globex"):
        await api.value(await api.tenant(name, "shared"), "SELECT 1")
    await api.service.poller.run_once()
    grown = {}
    for url in (PAST, "/v1/pools/shared@local/stats/history"):
        history = ok(await api.client.get(url))
        assert history["pool_id"] == "shared@local"
        grown[history["tenant"]] = sum(step["acquired"] for step in history["items"])
    assert grown == {"acme": 1, None: 2}


async def test_the_service_has_a_past_of_all_its_pools_together(api: Api) -> None:
    for name, strategy in [("acme", "shared"), ("globex", "shared"), ("hooli", "per_tenant")]:
        await api.value(await api.tenant(name, strategy), "SELECT 1")
    await api.service.poller.run_once()
    ok(await api.client.delete("/v1/tenants/hooli"))
    await api.service.poller.run_once()
    [*steps] = ok(await api.client.get("/v1/stats/history?step_seconds=3600"))["items"]
    assert sum(step["acquired"] for step in steps) == 3
    assert sum(step["samples"] for step in steps) >= 2
    assert sum(step["connection_seconds"] for step in steps) > 0
    assert max(step["wait_p95_ms"] for step in steps) > 0


async def test_a_tenants_own_pool_has_the_tenants_past(api: Api) -> None:
    await api.tenant("acme")
    await api.remember(sample("acme", acquired=3))
    history = await past(api, 1, "/v1/pools/acme/stats/history")
    assert (history["tenant"], history["pool_id"]) == ("acme", "acme")
    assert [step["acquired"] for step in history["items"]] == [3]


async def test_what_does_not_exist_has_no_past(api: Api) -> None:
    await api.tenant("globex", "shared")
    url = "/v1/tenants/nobody/stats/history"
    problem(await api.client.get(url), 404, "tenant-not-found")
    for pool in ("nobody", "shared@nowhere", "globex"):
        url = f"/v1/pools/{pool}/stats/history"
        problem(await api.client.get(url), 404, "pool-not-found")


async def test_a_bound_key_sees_the_past_of_pools_that_serve_its_tenants(
    api_with: ApiWith, tmp_path: Path
) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("all")
    keys.make("guest", tenants=("guest", "absent"))
    keys.make("owner", tenants=("own",))
    async with api_with(keys_file=keys.path) as api:
        api.client.headers.update(keys.headers("all"))
        await api.tenant("own")
        await api.tenant("guest", "shared")
        seen = {}
        for name in keys.tokens:
            pools = ("own", "guest", "absent", "shared@local")
            urls = [f"/v1/pools/{pool}/stats/history" for pool in pools]
            answers = [await api.client.get(url, headers=keys.headers(name)) for url in urls]
            seen[name] = [response.status_code for response in answers]
            whole = await api.client.get("/v1/stats/history", headers=keys.headers(name))
            seen[name].append(whole.status_code)
    assert seen == {
        "all": [200, 404, 404, 200, 200],
        "guest": [404, 404, 404, 200, 403],
        "owner": [200, 404, 404, 404, 403],
    }


async def test_a_senseless_range_is_refused_with_its_name(api: Api) -> None:
    await api.tenant("acme")
    for query, parameter in REFUSED:
        for url in (PAST, "/v1/pools/acme/stats/history"):
            response = await api.client.get(f"{url}?{query}")
            assert pointers(response) == [f"/query/{parameter}"], query


async def test_while_the_catalog_is_away_the_past_is_not_known(
    api_apart: Api, fault_proxy: FaultProxy
) -> None:
    await api_apart.tenant("acme")
    await fault_proxy.cut()
    problem(await api_apart.client.get(PAST), 503, "catalog-unavailable")
