"""Recommendations over HTTP: listed, applied, dismissed."""

from dataclasses import replace
from uuid import uuid4

import httpx
import pytest

from app.api.http.paging import encode_cursor
from app.domain.recommendation import Recommendation, RecommendationStatus
from tests.api.http.test_etags import in_turn
from tests.catalog.values import recommendation
from tests.fixtures.app import Api, ok, pointers, problem
from tests.fixtures.proxy import FaultProxy

URL = "/v1/recommendations"


async def given(api: Api, pool: str = "acme", seconds: float = 0.0) -> Recommendation:
    """An open recommendation, which the service knows as if a tick had made it."""
    made = recommendation(pool, seconds)
    await api.service.catalog.recommendations.add(made)
    await api.service.advisor_loop.load()
    return made


async def listed(api: Api, query: str = "") -> list[str]:
    return [each["id"] for each in ok(await api.client.get(f"{URL}?{query}"))["items"]]


async def test_a_recommendation_is_shown_with_its_reason_and_its_sample(api: Api) -> None:
    made = await given(api)
    [shown] = ok(await api.client.get(URL))["items"]
    assert ok(await api.client.get(f"{URL}/{made.id}")) == shown
    assert shown == {
        "id": str(made.id),
        "pool": "acme",
        "tenant": "acme",
        "kind": "resize",
        "placement": None,
        "rule": "hysteresis",
        "action": "scale_up",
        "current_size": 5,
        "new_size": 10,
        "wanted": 12,
        "reason_code": "queue_above_target",
        "reason": "8 requests waiting (threshold 3); grown by 5",
        "confidence": "medium",
        "estimated": False,
        "evidence": {"offered_load": 6.5, "needed_size": None},
        "expected": {
            "late_share_before": 0.5,
            "late_share_after": None,
            "connections_before": 5,
            "connections_after": 10,
        },
        "max_size": 5,
        "metrics": {
            "total_connections": 5,
            "idle_connections": 0,
            "active_connections": 5,
            "waiting_requests": 8,
        },
        "status": "open",
        "created_at": "2026-07-14T12:00:00Z",
        "expires_at": "2026-07-14T12:10:00Z",
        "closed_at": None,
        "closed_by": None,
    }


async def test_they_come_newest_first_and_can_be_filtered(api: Api) -> None:
    old = await given(api, "acme", 0)
    new = await given(api, "acme", 1)
    shared = await given(api, "shared@local", 2)
    assert await listed(api) == [str(each.id) for each in (shared, new, old)]
    assert await listed(api, "status=open") == [str(shared.id), str(new.id)]
    assert await listed(api, "status=superseded") == [str(old.id)]
    assert await listed(api, "pool=shared@local") == [str(shared.id)]
    assert await listed(api, "tenant=acme&status=open") == [str(new.id)]


async def test_pages_join_without_gap_or_repetition(api: Api) -> None:
    for second in (0, 1, 1, 2, 3):
        await given(api, f"t{uuid4().hex[:8]}", second)
    seen, cursor = [], ""
    while cursor is not None:
        page = ok(await api.client.get(f"{URL}?limit=2{cursor and '&cursor='}{cursor}"))
        seen += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert seen == await listed(api)
    assert len(set(seen)) == 5


async def test_applying_one_resizes_the_pool_and_records_why(api: Api) -> None:
    url = await api.tenant("acme")
    made = await given(api)
    applied = ok(await api.client.post(f"{URL}/{made.id}/apply"))
    assert (applied["status"], applied["closed_by"]) == ("applied", "api")
    assert applied["closed_at"].endswith("Z")
    assert ok(await api.client.get(f"{url}/pool"))["desired"]["max_size"] == 10
    events = ok(await api.client.get("/v1/events?pool=acme"))["items"]
    assert {event["reason"] for event in events} == {made.advice.reason}
    assert await listed(api, "status=open") == []


async def test_one_made_for_another_size_is_not_applied(api: Api) -> None:
    """A recommendation to grow from 5 to 10 would shrink a pool that somebody has set to 12."""
    url = await api.tenant("acme")
    made = await given(api)
    ok(await api.client.put(f"{url}/pool", json={"max_size": 12}), 201)
    response = await api.client.post(f"{URL}/{made.id}/apply")
    problem(response, 409, "recommendation-closed")
    assert ok(await api.client.get(f"{url}/pool"))["desired"]["max_size"] == 12
    assert await listed(api, "status=superseded") == [str(made.id)]


async def test_one_that_waited_is_not_applied_to_a_later_tenant_of_that_name(api: Api) -> None:
    await api.tenant("acme")
    made = await given(api)
    statuses = await in_turn(
        api,
        "acme",
        "/v1",
        ("DELETE /tenants/acme", None, {}),
        ("PUT /tenants/acme", {"strategy": "per_tenant"}, {}),
        ("POST /tenants/acme/provision?adopt=true", None, {}),
        (f"POST /recommendations/{made.id}/apply", None, {}),
    )
    assert statuses == [200, 201, 200, 404]
    problem(await api.client.get(f"{URL}/{made.id}"), 404, "recommendation-not-found")


async def test_dismissing_one_changes_nothing_else(api: Api) -> None:
    await api.tenant("acme")
    made = await given(api)
    dismissed = ok(await api.client.post(f"{URL}/{made.id}/dismiss"))
    assert dismissed["status"] == "dismissed"
    assert not api.service.manager.desired


async def test_a_closed_one_cannot_be_closed_again(api: Api) -> None:
    await api.tenant("acme")
    made = await given(api)
    ok(await api.client.post(f"{URL}/{made.id}/dismiss"))
    for verb in ("apply", "dismiss"):
        response = await api.client.post(f"{URL}/{made.id}/{verb}")
        problem(response, 409, "recommendation-closed")


async def test_an_unknown_one_is_not_found(api: Api) -> None:
    for verb in ("apply", "dismiss"):
        response = await api.client.post(f"{URL}/{uuid4()}/{verb}")
        problem(response, 404, "recommendation-not-found")
        assert pointers(await api.client.post(f"{URL}/42/{verb}")) == ["/path/id"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("status=gone", "status"),
        ("tenant=%00", "tenant"),
        ("pool=a%00b", "pool"),
        ("limit=0", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=WyJhIiwiYiJd", "cursor"),
    ],
)
async def test_a_senseless_filter_is_refused_with_its_name(
    unstarted: httpx.AsyncClient, query: str, parameter: str
) -> None:
    assert pointers(await unstarted.get(f"{URL}?{query}")) == [f"/query/{parameter}"]


@pytest.mark.parametrize(
    "moment",
    ["2026-07-14T12:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1784030400"],
)
async def test_a_forged_cursor_is_refused_whether_the_catalog_is_there_or_not(
    api_apart: Api, fault_proxy: FaultProxy, moment: str
) -> None:
    await given(api_apart)
    url = f"{URL}?cursor={encode_cursor(moment, str(uuid4()))}"
    assert pointers(await api_apart.client.get(url)) == ["/query/cursor"]
    await fault_proxy.cut()
    assert pointers(await api_apart.client.get(url)) == ["/query/cursor"]


async def test_while_the_catalog_is_away_the_open_ones_are_served_and_marked(
    api_apart: Api, fault_proxy: FaultProxy
) -> None:
    old, new = await given(api_apart, "acme", 0), await given(api_apart, "globex", 1)
    await fault_proxy.cut()
    page = ok(await api_apart.client.get(f"{URL}?status=open&limit=1"))
    assert ([each["id"] for each in page["items"]], page["stale"]) == ([str(new.id)], True)
    page = ok(await api_apart.client.get(f"{URL}?limit=1&cursor={page['next_cursor']}"))
    assert ([each["id"] for each in page["items"]], page["next_cursor"]) == ([str(old.id)], None)
    problem(await api_apart.client.get(f"{URL}?status=applied"), 503, "catalog-unavailable")


async def test_while_the_catalog_is_away_nothing_can_be_applied(
    api_apart: Api, fault_proxy: FaultProxy
) -> None:
    await api_apart.tenant("acme")
    made = await given(api_apart)
    await fault_proxy.cut()
    response = await api_apart.client.post(f"{URL}/{made.id}/apply")
    problem(response, 503, "catalog-unavailable")
    assert replace(made, status=RecommendationStatus.OPEN) in (
        api_apart.service.advisor_loop.open_recommendations.values()
    )
