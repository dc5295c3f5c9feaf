"""Recommendations in a browser: they change all the time, and a click never hits the wrong one."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Page, Route, expect

from tests.api.ui.test_page import callers_of
from tests.fixtures.app import Api
from tests.fixtures.browser import Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LIST = "**/v1/recommendations?status=open&limit=200"


class Stage:
    """The test's recommendations instead of the service's, and the decisions on them."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._items: list[dict[str, Any]] = []
        self.decided: list[str] = []

    async def begin(self) -> None:
        await self._page.route(_LIST, self._list)
        await self._page.route("**/v1/recommendations/*/*", self._decide)
        await self._page.goto("/#/advice")

    def show(self, *recommendations: tuple[str, int, int], waiting: int = 0) -> None:
        """Show pools with their size and the recommended one; *waiting* when it was made."""
        self._items = [
            {
                "id": f"{pool}-{new_size}",
                "pool": pool,
                "tenant": pool,
                "kind": "resize",
                "action": "scale_up",
                "max_size": max_size,
                "new_size": new_size,
                "reason": f"{pool}!",
                "confidence": "high",
                "expected": None,
                "metrics": {"waiting_requests": waiting},
                "created_at": "2026-11-20T09:00:00Z",
            }
            for pool, max_size, new_size in recommendations
        ]

    def change(self, **fields: Any) -> None:
        """Change all recommendations that are shown."""
        self._items = [{**each, **fields} for each in self._items]

    async def _list(self, route: Route) -> None:
        await route.fulfill(json={"items": self._items, "next_cursor": None, "stale": False})

    async def _decide(self, route: Route) -> None:
        *_, id_, decision = route.request.url.split("/")
        self.decided.append(f"{decision} {id_}")
        await route.fulfill(json={})


async def test_the_successor_of_a_superseded_recommendation_is_applied(
    service: Api, tab: Tab
) -> None:
    await service.tenant("acme")
    gone = str(uuid4())

    async def outdated(route: Route) -> None:
        reply = await route.fetch()
        if reply.status == 304:
            await route.fulfill(response=reply)
            return
        recommended: dict[str, Any] = await reply.json()
        for each in recommended["items"]:
            each |= {"id": gone, "new_size": 99}
        await route.fulfill(response=reply, body=json.dumps(recommended))

    async def is_closed(route: Route) -> None:
        problem = {"code": "recommendation-closed", "detail": "The recommendation is superseded."}
        await route.fulfill(status=409, json=problem)

    page = tab.page
    await page.route(_LIST, outdated)
    await page.route(f"**/v1/recommendations/{gone}/apply", is_closed)
    await page.goto("/#/advice")
    async with callers_of(service, "acme", callers=8):
        line = page.locator(".recommendation", has_text="2 → 99")
        await line.get_by_role("button", name="Apply").click()
        await expect(page.locator("#outcome")).to_contain_text(
            "The recommendation for acme changed"
        )
    applied = await service.client.get("/v1/recommendations?status=applied&pool=acme")
    (made,) = applied.json()["items"]
    pool = await service.client.get("/v1/tenants/acme/pool")
    assert pool.json()["desired"]["max_size"] == made["new_size"] < 99
    await page.locator("#outcome").get_by_role("button", name="Close").click()
    await expect(page.locator("#outcome")).to_be_hidden()


async def test_the_outcome_of_a_click_stays_until_it_is_closed(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    page = tab.page
    await page.goto("/#/advice")
    async with callers_of(service, "acme", callers=8):
        line = page.locator(".recommendation", has_text="acme")
        await expect(line).to_be_visible()

        async def too_late(route: Route) -> None:
            await service.client.post(route.request.url.replace("/apply", "/dismiss"))
            await route.continue_()

        await page.route("**/apply", too_late)
        await line.get_by_role("button", name="Apply").click()
        outcome = page.locator("#outcome")
        await expect(outcome).to_be_visible()
        updated = await page.locator("#updated").text_content()
        await expect(page.locator("#updated")).not_to_have_text(updated or "")
        await expect(outcome).to_be_visible()


async def test_callers_wait_now_only_while_they_do(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    page, stage = tab.page, Stage(tab.page)
    stage.show(("acme", 2, 5), waiting=3)
    await stage.begin()
    badge = page.locator(".recommendation .badge")
    await expect(badge).to_have_text("Callers have waited")
    async with callers_of(service, "acme", callers=8):
        await expect(badge).to_have_text("Callers wait now")


async def test_no_line_moves_under_the_mouse(service: Api, tab: Tab) -> None:
    page, stage = tab.page, Stage(tab.page)
    stage.show(("acme", 2, 5), ("beta", 2, 6))
    await stage.begin()
    lines = page.locator(".recommendation")
    apply = lines.nth(1).get_by_role("button", name="Apply")
    await apply.hover()

    stage.show(("new", 1, 9), ("beta", 2, 7))
    await expect(lines).to_contain_text(["acme", "2 → 7", "new"])
    await apply.click()
    await expect(page.locator("#outcome")).to_contain_text("beta: 2 → 7 was applied.")
    assert stage.decided == ["apply beta-7"]
    await expect(lines.nth(0).get_by_role("button", name="Apply")).to_be_disabled()

    # Applied: the next recommendation for the pool is another line.
    stage.show(("new", 1, 9), ("beta", 7, 17))
    await page.locator("h1").hover()
    await expect(lines).to_contain_text(["new", "7 → 17"])
    await expect(page.locator(".closed")).to_have_count(0)


async def test_a_focused_button_keeps_the_focus(service: Api, tab: Tab) -> None:
    page, stage = tab.page, Stage(tab.page)
    stage.show(("acme", 2, 5), ("beta", 2, 6))
    await stage.begin()
    lines = page.locator(".recommendation")
    await lines.nth(1).get_by_role("button", name="Dismiss").focus()
    stage.show(("new", 1, 9), ("acme", 2, 5), ("beta", 2, 7))
    await expect(lines).to_contain_text(["new", "acme", "2 → 7"])
    await page.keyboard.press("Enter")
    await expect(page.locator("#outcome")).to_contain_text("beta: 2 → 7 was dismissed.")
    assert stage.decided == ["dismiss beta-7"]


async def test_nothing_can_be_applied_while_the_server_is_away(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    (await service.client.put("/v1/tenants/acme/pool")).raise_for_status()
    page, stage, states = tab.page, Stage(tab.page), ["available"]

    async def with_state(route: Route) -> None:
        reply = await route.fetch(headers={**route.request.headers, "if-none-match": ""})
        body = await reply.json()
        body["items"][0] |= {"state": states[-1]}
        await route.fulfill(json=body)

    await page.route("**/v1/servers?limit=100", with_state)
    stage.show(("acme", 2, 4))
    await stage.begin()
    line = page.locator(".recommendation")
    await expect(line.get_by_role("button", name="Apply")).to_be_visible()
    states.append("unavailable")
    await expect(line).to_contain_text("Its server is unavailable.")
    await expect(line.get_by_role("button", name="Apply")).to_have_count(0)
    await expect(line.get_by_role("button", name="Dismiss")).to_be_visible()


async def test_what_if_callers_had_to_wait_less(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    page, drawer = tab.page, tab.page.locator("#drawer")
    await page.goto("/#/pools/acme")
    async with callers_of(service, "acme", callers=8):
        await drawer.get_by_text("What if …").click()
        await drawer.get_by_label("milliseconds").fill("5")
        await drawer.get_by_role("button", name="Evaluate").click()
        await expect(drawer.locator(".what-if")).to_contain_text("connections.")
        await drawer.get_by_label("milliseconds").fill("0")
        await drawer.get_by_role("button", name="Evaluate").click()
        assert await drawer.locator("input:invalid").count() == 1


async def test_the_advisors_mode_is_changed(service: Api, tab: Tab) -> None:
    page, dialog = tab.page, tab.page.locator("#action")
    await page.goto("/#/advice")
    await page.get_by_role("button", name="Change").click()
    await expect(dialog).to_contain_text("This affects all pools of the service.")
    await dialog.get_by_label("Mode").select_option("off")
    await expect(dialog.locator(".plan")).to_contain_text("recommend → off")
    await dialog.get_by_role("button", name="Change").click()
    await expect(page.locator("header.view")).to_contain_text("Mode off")
    assert (await service.client.get("/v1/advisor")).json()["mode"] == "off"


async def test_what_is_urgent_follows_from_the_reason(service: Api, tab: Tab) -> None:
    """Not from the callers that wait now: the size may have nothing to do with those."""
    await tab.page.goto("/#/advice")
    urgencies = await tab.page.evaluate("""async () => {
      const { urgencyOf } = await import("./page/views/advice.js");
      const metrics = { waiting_requests: 7 };
      return [["scale_up", "demand_above_size"], ["scale_up", "room_for_bursts"],
              ["scale_down", "server_budget"], ["scale_down", "demand_below_size"]]
        .map(([action, reason_code]) => urgencyOf({ kind: "size", action, reason_code, metrics }));
    }""")
    assert urgencies == ["now", "grow", "budget", "shrink"]


async def test_a_reason_says_how_old_it_is(tab: Tab) -> None:
    stage = Stage(tab.page)
    stage.show(("acme", 2, 9))
    await stage.begin()
    text = tab.page.locator(".recommendation .text")
    await expect(text).to_have_text(re.compile(r"^[0-9]+ d ago: acme!$"))
    stage.change(created_at=datetime.now(UTC).isoformat())
    await expect(text).to_have_text("acme!")


async def test_fewer_connections_for_late_callers_are_a_trial_and_no_good_news(tab: Tab) -> None:
    stage = Stage(tab.page)
    stage.show(("acme", 5, 3))
    stage.change(action="scale_down", reason_code="past_knee")
    await stage.begin()
    await expect(tab.page.locator(".recommendation .badge.warn")).to_have_text(
        "Fewer connections may end more leases"
    )
