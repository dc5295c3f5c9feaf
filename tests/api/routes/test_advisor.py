"""The advisor over HTTP: shown, changed, and asked what it would recommend."""

import asyncio
from typing import Any

import httpx
import pytest

from app.control.advisor.advised_pools import AdvisedPools
from app.domain.advisor import server_advisor
from tests.fixtures.app import Api, ok, pointers, problem
from tests.fixtures.turns import counted_turns

URL = "/v1/advisor"
CROWDED = {
    "total_connections": 10,
    "idle_connections": 0,
    "active_connections": 10,
    "waiting_requests": 8,
}
IDLE = {
    "total_connections": 10,
    "idle_connections": 9,
    "active_connections": 1,
    "waiting_requests": 0,
}


async def evaluate(api: Api, metrics: dict[str, int] = CROWDED, **body: Any) -> dict[str, Any]:
    return ok(await api.client.post(f"{URL}/evaluate", json={"metrics": metrics, **body}))


async def test_it_begins_with_the_demand_rule_and_recommends(api: Api) -> None:
    response = await api.client.get(URL)
    shown = ok(response)
    assert (shown["rule"], shown["mode"], shown["generation"]) == ("demand", "recommend", 0)
    assert shown["config"]["patience_seconds"] == 0.1
    assert shown["config"]["trial"]["elasticity"] == 0.3
    assert shown["counters"] == {"adjustments_total": 0, "open_recommendations": 0}
    assert response.headers["etag"] == '"0"'


async def test_hysteresis_can_be_chosen_with_the_published_configuration(api: Api) -> None:
    shown = ok(await api.client.put(URL, json={"rule": "hysteresis"}))
    assert shown["config"] == {
        "enabled": True,
        "min_pool_size": 5,
        "max_pool_size": 50,
        "target_queue_depth": 3,
        "scale_up_step": 5,
        "scale_down_step": 2,
        "scale_down_idle_ratio": 0.5,
        "tuning_interval_ms": 3_600_000,
        "samples_before_action": 3,
    }


async def test_what_is_left_out_of_a_change_stays_as_it_is(api: Api) -> None:
    config = {"late_share": 0.05, "trial": {"ticks": 5}}
    before = ok(await api.client.put(URL, json={"config": config}))["config"]
    changed = ok(await api.client.put(URL, json={"mode": "apply"}))
    assert (changed["mode"], changed["config"]) == ("apply", before)
    assert (before["late_share"], before["trial"]["ticks"]) == (0.05, 5)
    assert before["trial"]["max_ticks"] == 6
    ok(await api.client.put(URL, json={"rule": "hysteresis", "config": {"scale_up_step": 7}}))
    assert ok(await api.client.put(URL, json={"rule": "demand"})) == {**changed, "generation": 4}


@pytest.mark.parametrize("rule", ["demand", "hysteresis"])
async def test_a_shown_configuration_can_be_put_back_without_a_change(api: Api, rule: str) -> None:
    shown = ok(await api.client.put(URL, json={"mode": "off", "rule": rule}))
    again = {name: shown[name] for name in ("rule", "mode", "config")}
    assert ok(await api.client.put(URL, json=again)) == shown


async def test_a_field_of_the_other_rule_is_refused_with_its_place(api: Api) -> None:
    response = await api.client.put(URL, json={"config": {"scale_up_step": 7}})
    assert pointers(response) == ["/body/config/scale_up_step"]
    body = {"rule": "hysteresis", "config": {"late_share": 0.1}}
    assert pointers(await api.client.put(URL, json=body)) == ["/body/config/late_share"]


async def test_a_change_is_in_the_audit_trail(api: Api) -> None:
    ok(await api.client.put(URL, json={"mode": "off"}))
    [event] = ok(await api.client.get("/v1/events?action=advisor.updated"))["items"]
    assert (event["before"]["mode"], event["after"]["mode"]) == ("recommend", "off")
    assert event["actor"] == "api"


async def test_a_change_meant_for_another_version_is_refused(api: Api) -> None:
    first = await api.client.put(URL, json={"mode": "off"}, headers={"If-Match": '"0"'})
    assert (ok(first)["generation"], first.headers["etag"]) == (1, '"1"')
    stale = await api.client.put(URL, json={"mode": "apply"}, headers={"If-Match": '"0"'})
    problem(stale, 412, "stale-version")
    assert ok(await api.client.get(URL))["mode"] == "off"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"mode": "on"}, "/body/mode"),
        ({"mode": True}, "/body/mode"),
        ({"rule": "other"}, "/body/rule"),
        ({"knob": 1}, "/body/knob"),
        ({"config": {"knob": 1}}, "/body/config/knob"),
        ({"config": {"scale_up_step": 0}}, "/body/config/scale_up_step"),
        ({"config": {"scale_down_step": 0}}, "/body/config/scale_down_step"),
        ({"config": {"scale_down_idle_ratio": 1.5}}, "/body/config/scale_down_idle_ratio"),
        ({"config": {"scale_down_idle_ratio": -0.1}}, "/body/config/scale_down_idle_ratio"),
        ({"config": {"tuning_interval_ms": 99}}, "/body/config/tuning_interval_ms"),
        ({"config": {"samples_before_action": 0}}, "/body/config/samples_before_action"),
        ({"config": {"max_pool_size": "10"}}, "/body/config/max_pool_size"),
        ({"config": {"max_pool_size": 10.5}}, "/body/config/max_pool_size"),
        ({"config": {"max_pool_size": 10**9}}, "/body/config/max_pool_size"),
        ({"config": {"late_share": 1.5}}, "/body/config/late_share"),
        ({"config": {"trial": {"knob": 1}}}, "/body/config/trial/knob"),
    ],
)
async def test_what_cannot_work_is_refused_with_its_place(
    unstarted: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    assert pointers(await unstarted.put(URL, json=body)) == [pointer]


async def test_a_minimum_must_be_below_the_maximum(api: Api) -> None:
    for config in ({"min_pool_size": 50}, {"max_pool_size": 5}):
        response = await api.client.put(URL, json={"rule": "hysteresis", "config": config})
        problem(response, 422, "invalid-input")


async def test_enough_crowded_samples_ask_for_growth(api: Api) -> None:
    response = await evaluate(api, samples=3)
    assert (response["action"], response["current_size"], response["new_size"]) == (
        "scale_up",
        10,
        15,
    )
    assert response["reason_code"] == "queue_above_target"
    assert "8 requests waiting" in response["reason"]


async def test_one_sample_is_not_enough(api: Api) -> None:
    response = await evaluate(api)
    assert (response["action"], response["new_size"]) == ("stable", 10)
    assert response["reason_code"] == "collecting_samples"


async def test_idle_samples_ask_for_less(api: Api) -> None:
    response = await evaluate(api, IDLE, samples=3)
    assert (response["action"], response["new_size"]) == ("scale_down", 8)


async def test_a_configuration_can_be_tried(api: Api) -> None:
    config = {"enabled": True, "scale_up_step": 1, "samples_before_action": 1}
    response = await evaluate(api, config=config, rule="hysteresis")
    assert (response["action"], response["new_size"]) == ("scale_up", 11)


async def test_asking_changes_nothing_and_works_while_it_is_off(api: Api) -> None:
    before = ok(await api.client.put(URL, json={"mode": "off"}))
    response = await evaluate(api, samples=3, config={"max_pool_size": 12})
    assert response["new_size"] == 12
    assert ok(await api.client.get(URL)) == before


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/body/metrics"),
        ({"metrics": {**CROWDED, "waiting_requests": -1}}, "/body/metrics/waiting_requests"),
        ({"metrics": {**CROWDED, "idle_connections": "0"}}, "/body/metrics/idle_connections"),
        ({"metrics": {**CROWDED, "busy": 1}}, "/body/metrics/busy"),
        ({"metrics": CROWDED, "samples": 0}, "/body/samples"),
        ({"metrics": CROWDED, "samples": 10**6}, "/body/samples"),
        ({"metrics": CROWDED, "rule": "other"}, "/body/rule"),
        ({"metrics": CROWDED, "rule": "demand"}, "/body/rule"),
        ({"metrics": CROWDED, "late_ms": 5}, "/body/late_ms"),
        ({"metrics": CROWDED, "tenant": "acme"}, "/body/metrics"),
        ({"tenant": "acme", "late_share": 0}, "/body/late_share"),
    ],
)
async def test_a_senseless_question_is_refused_with_its_place(
    unstarted: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    assert pointers(await unstarted.post(f"{URL}/evaluate", json=body)) == [pointer]


async def test_a_live_pool_can_be_judged_by_another_lateness_rule_or_budget(api: Api) -> None:
    url = await api.tenant("acme")
    problem(
        await api.client.post(f"{URL}/evaluate", json={"tenant": "acme"}), 404, "pool-not-found"
    )
    ok(await api.client.put(f"{url}/pool", json={"max_size": 5}), 201)
    await observed(api)
    await asyncio.gather(*(api.query(url, "select pg_sleep(0.1)") for _ in range(60)))
    await observed(api)

    async def needed(**body: Any) -> int:
        response = ok(await api.client.post(f"{URL}/evaluate", json={"tenant": "acme", **body}))
        assert response["evidence"]["events"] == 60
        size: int = response["evidence"]["needed_size"]
        return size

    before = ok(await api.client.get(URL))
    assert await needed(late_ms=1, late_share=0.001) > await needed(late_ms=500, late_share=0.2)
    cut = {"tenant": "acme", "budget": 6}
    assert ok(await api.client.post(f"{URL}/evaluate", json=cut))["new_size"] <= 6
    other = {"tenant": "acme", "rule": "hysteresis", "config": {"samples_before_action": 1}}
    response = ok(await api.client.post(f"{URL}/evaluate", json=other))
    assert response["reason_code"] == "within_thresholds"
    assert ok(await api.client.get(URL)) == before
    problem(
        await api.client.post(f"{URL}/evaluate", json={"tenant": "nobody"}), 404, "tenant-not-found"
    )


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (AdvisedPools, "_of"),
        (server_advisor, "_held_for_trial"),
    ],
)
async def test_the_event_loop_has_its_turn_while_all_pools_are_tried_with_a_budget(
    api: Api, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    for number in range(3):
        url = await api.tenant(f"t{number}")
        ok(await api.client.put(f"{url}/pool", json={"max_size": 5}), 201)
    async with counted_turns() as turns:
        monkeypatch.setattr(owner, step, turns.counted(getattr(owner, step)))
        ok(await api.client.post(f"{URL}/evaluate", json={"tenant": "t1", "budget": 6}))
    assert turns.calls >= 3
    assert turns.most == 1


async def observed(api: Api) -> None:
    api.service.advisor_loop._due = 0.0
    await api.service.advisor_loop.tick()


async def test_a_pool_is_shown_with_its_latest_advice(api: Api) -> None:
    url = await api.tenant("acme")
    assert ok(await api.client.put(f"{url}/pool", json={}), 201)["advice"] is None
    await observed(api)
    await observed(api)
    advice = ok(await api.client.get(f"{url}/pool"))["advice"]
    assert (advice["action"], advice["reason_code"]) == ("stable", "too_few_events")
    assert (advice["confidence"], advice["blocked_by"]) == ("low", None)
    assert advice["reason"]
    resized = ok(await api.client.put(f"{url}/pool", json={"max_size": 14}))
    assert resized["advice"] is None, "the advice was about another size"
    await observed(api)
    assert ok(await api.client.get(f"{url}/pool"))["advice"]["current_size"] == 14
