"""The audit trail over HTTP."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import pytest

from app.api.routes.events import EventView
from app.domain.audit import Actor, AuditEvent, Origin
from tests.fixtures.app import Api, ok, pointers, problem
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.turns import counted_turns

URL = "/v1/events"


async def actions(api: Api, query: str = "") -> list[str]:
    return [event["action"] for event in ok(await api.client.get(f"{URL}?{query}"))["items"]]


async def test_every_change_is_listed_newest_first(api: Api) -> None:
    url = await api.tenant("acme")
    ok(await api.client.put(f"{url}/pool", json={"max_size": 3}), 201)
    assert await actions(api) == ["pool.declared", "tenant.provisioned", "tenant.created"]


async def test_an_event_has_actor_time_and_both_values(api: Api) -> None:
    url = await api.tenant("acme")
    ok(await api.client.put(f"{url}/pool", json={"max_size": 3}), 201)
    response = await api.client.put(f"{url}/pool", json={"max_size": 4})
    [event] = ok(await api.client.get(f"{URL}?action=pool.resized"))["items"]
    assert (event["actor"], event["tenant"], event["pool"]) == ("api", "acme", "acme")
    assert (event["before"]["max_size"], event["after"]["max_size"]) == (3, 4)
    assert event["request_id"] == response.headers["x-request-id"]
    assert event["at"].endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(event["at"])
    assert abs(age) < timedelta(minutes=1)


async def test_the_event_loop_has_its_turn_while_events_are_listed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        ok(await api.client.put(f"/v1/tenants/t{number}", json={"labels": {"n": "1"}}), 201)
    async with counted_turns() as turns:
        monkeypatch.setattr(EventView, "of", turns.counted(EventView.of))
        listed = ok(await api.client.get(URL))["items"]
    assert len(listed) == turns.calls == 4
    assert turns.most == 1
    assert listed[0]["after"]["labels"] == {"n": "1"}


async def test_events_can_be_filtered(api: Api) -> None:
    await api.tenant("acme")
    await api.tenant("globex")
    assert await actions(api, "tenant=acme") == ["tenant.provisioned", "tenant.created"]
    assert await actions(api, "tenant=acme&action=tenant.created") == ["tenant.created"]
    assert await actions(api, "pool=globex") == []
    assert await actions(api, "tenant=acme&actor=nobody") == []
    assert len(await actions(api, "tenant=acme&actor=api")) == 2
    later = quote((datetime.now(UTC) + timedelta(minutes=1)).isoformat())
    assert await actions(api, f"since={later}") == []
    earlier = quote((datetime.now(UTC) - timedelta(minutes=1)).isoformat())
    assert len(await actions(api, f"since={earlier}")) == 4


async def test_pages_join_without_gap_or_repetition(api: Api) -> None:
    for number in range(3):
        await api.tenant(f"t{number}")
    whole = ok(await api.client.get(URL))
    assert whole["next_cursor"] is None
    seen, cursor = [], ""
    while cursor is not None:
        page = ok(await api.client.get(f"{URL}?limit=4{cursor and '&cursor='}{cursor}"))
        seen += page["items"]
        cursor = page["next_cursor"]
    assert seen == whole["items"]
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("tenant=ACME", "tenant"),
        ("tenant=%00", "tenant"),
        ("pool=a%00b", "pool"),
        ("pool=other@local", "pool"),
        ("action=%00", "action"),
        ("action=created", "action"),
        ("origin=nobody", "origin"),
        ("since=yesterday", "since"),
        ("since=1700000000", "since"),
        ("since=2026-07-14", "since"),
        ("since=2026-07-14T12:00:00", "since"),
        ("since=0001-01-01T00:00:00%2B14:00", "since"),
        ("since=9999-12-31T23:59:59-14:00", "since"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("cursor=nonsense", "cursor"),
    ],
)
async def test_a_senseless_filter_is_refused_with_its_name(
    unstarted: httpx.AsyncClient, query: str, parameter: str
) -> None:
    assert pointers(await unstarted.get(f"{URL}?{query}")) == [f"/query/{parameter}"]


async def test_without_the_catalog_pending_events_are_listed_as_stale(
    api_apart: Api, fault_proxy: FaultProxy
) -> None:
    await fault_proxy.cut()
    now = datetime.now(UTC)
    for tenant in ("acme", "globex", "acme"):
        event = AuditEvent(at=now, actor=Actor(name="api"), action="pool.recycled", tenant=tenant)
        await api_apart.service.audit_outbox.record(event)
    page = ok(await api_apart.client.get(f"{URL}?tenant=acme"))
    assert [(event["id"], event["tenant"]) for event in page["items"]] == [(None, "acme")] * 2
    assert (page["stale"], page["next_cursor"]) == (True, None)
    assert len(ok(await api_apart.client.get(f"{URL}?origin=request"))["items"]) == 3
    assert ok(await api_apart.client.get(f"{URL}?origin=service"))["items"] == []


async def test_without_the_catalog_no_more_pending_events_are_looked_at_than_are_listed(
    api_apart: Api, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fault_proxy.cut()
    event = AuditEvent(
        at=datetime.now(UTC), actor=Actor(name="api"), action="pool.recycled", tenant="acme"
    )
    outbox = api_apart.service.audit_outbox
    outbox.enqueue(*(replace(event, reason=str(number)) for number in range(50)))
    async with counted_turns() as turns:
        monkeypatch.setattr(Origin, "of", turns.counted(Origin.of))
        page = ok(await api_apart.client.get(f"{URL}?limit=3"))
    assert [each["reason"] for each in page["items"]] == ["49", "48", "47"]
    assert (turns.calls, turns.most) == (3, 1)


async def test_while_the_catalog_is_away_the_next_page_is_not_to_be_had(
    api_apart: Api, fault_proxy: FaultProxy
) -> None:
    """An empty page would look like the end of the list."""
    await api_apart.tenant("acme")
    cursor = ok(await api_apart.client.get(f"{URL}?limit=1"))["next_cursor"]
    await fault_proxy.cut()
    response = await api_apart.client.get(f"{URL}?cursor={cursor}")
    problem(response, 503, "catalog-unavailable")
