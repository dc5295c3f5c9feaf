"""Recommendations in a browser: they change all the time, and a click never hits the wrong one."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from playwright.async_api import Route, expect

from tests.api.ui.test_page import callers_of
from tests.fixtures.browser import Tab
from tests.fixtures.served import Served

_LIST = "**/v1/recommendations?status=open&limit=200"
# The page's own module, with recommendations of the test.
_STAGE = """async () => {
  const place = document.createElement("ul");
  place.id = "stage";
  document.querySelector("main").prepend(place);
  const { Recommendations } = await import("/page/recommendations.js");
  window.pressed = [];
  const decide = ({ pool, new_size }, what) => window.pressed.push(`${what} ${pool} ${new_size}`);
  const list = new Recommendations(place, { open: () => null, decide });
  window.showAway = (away, ...all) => list.show(all.map(([pool, max_size, new_size]) =>
    ({ pool, max_size, new_size, kind: "resize", action: "scale_up", reason: `${pool}!` })),
    [], new Set(away));
  window.show = (...all) => window.showAway([], ...all);
}"""


async def test_the_successor_of_a_superseded_recommendation_is_applied(
    service: Served, tab: Tab
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
    await page.goto("/")
    async with callers_of(service, "acme", callers=8):
        line = page.locator("#actions li", has_text="2 → 99")
        await line.get_by_role("button", name="Apply").click()
        await expect(page.locator("#outcome")).to_contain_text(
            "The recommendation for acme changed"
        )
    applied = await service.client.get("/v1/recommendations?status=applied&pool=acme")
    (made,) = applied.json()["items"]
    pool = await service.client.get("/v1/tenants/acme/pool")
    assert pool.json()["desired"]["max_size"] == made["new_size"] < 99
    await page.get_by_role("button", name="Close").click()
    await expect(page.locator("#outcome")).to_be_hidden()


async def test_the_outcome_of_a_click_stays_until_it_is_closed(service: Served, tab: Tab) -> None:
    await service.tenant("acme")
    page = tab.page
    await page.goto("/")
    async with callers_of(service, "acme", callers=8):
        line = page.locator("#actions li", has_text="acme")
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


async def test_no_line_moves_under_the_mouse(service: Served, tab: Tab) -> None:
    page = tab.page
    await page.goto("/")
    await page.evaluate(_STAGE)
    lines = page.locator("#stage li")
    await page.evaluate("show(['acme', 2, 5], ['beta', 2, 6])")
    apply = lines.nth(1).get_by_role("button", name="Apply")
    await apply.hover()

    await page.evaluate("show(['new', 1, 9], ['beta', 2, 7])")
    await expect(lines).to_contain_text(["acme", "beta2 → 7beta!", "new"])
    await apply.click()
    assert await page.evaluate("pressed") == ["apply beta 7"]
    await expect(lines.nth(0).get_by_role("button", name="Apply")).to_be_disabled()

    # Applied: the next recommendation for the pool is another line.
    await page.evaluate("show(['new', 1, 9], ['beta', 7, 17])")
    await expect(apply).to_be_disabled()
    await page.locator("h1").hover()
    await expect(lines).to_contain_text(["new", "beta7 → 17"])
    await expect(page.locator("#stage .closed")).to_have_count(0)


async def test_a_focused_button_keeps_the_focus(service: Served, tab: Tab) -> None:
    page = tab.page
    await page.goto("/")
    await page.evaluate(_STAGE)
    await page.evaluate("show(['acme', 2, 5], ['beta', 2, 6])")
    await page.locator("#stage li").nth(1).get_by_role("button", name="Dismiss").focus()
    await page.evaluate("show(['new', 1, 9], ['acme', 2, 5], ['beta', 2, 7])")
    await page.keyboard.press("Enter")
    assert await page.evaluate("pressed") == ["dismiss beta 7"]


async def test_nothing_can_be_applied_while_the_server_is_away(service: Served, tab: Tab) -> None:
    page = tab.page
    await page.goto("/")
    await page.evaluate(_STAGE)
    line = page.locator("#stage li")
    for away, count in [([], 1), (["acme"], 0)]:
        await page.evaluate("(away) => window.showAway(away, ['acme', 2, 4])", away)
        await expect(line.get_by_role("button", name="Dismiss")).to_be_visible()
        await expect(line.get_by_role("button", name="Apply")).to_have_count(count)
