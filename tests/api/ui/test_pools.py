"""Pools in a browser: each operation, and which tenants it affects."""

import pytest
from playwright.async_api import Route, expect

from tests.fixtures.app import Api, ok
from tests.fixtures.browser import Tab

LINES = """(one) => {
  const text = document.createRange();
  text.selectNodeContents(one);
  return new Set([...text.getClientRects()].map(({ top }) => Math.round(top))).size;
}"""
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_every_operation_of_a_pool(service: Api, tab: Tab) -> None:
    await service.tenant("beta")
    page = tab.page
    await page.goto("/#/tenants/beta")
    dialog, drawer, outcome = (
        page.locator("#action"),
        page.locator("#drawer"),
        page.locator("#outcome"),
    )

    await tab.operate("Open", "Open pool beta", "Pool beta: 1 connection open, at most 2.")
    await page.goto("/#/pools/beta")
    await drawer.get_by_role("button", name="Resize", exact=True).click()
    await dialog.get_by_label("max_size").fill("7")
    await dialog.get_by_label("min_size").fill("9")
    await expect(dialog.locator(".problem")).to_contain_text("must not exceed max_size")
    await dialog.get_by_label("min_size").fill("1")
    await expect(dialog.locator(".plan")).to_contain_text("max_size 2 → 7")
    await dialog.get_by_role("button", name="Resize", exact=True).click()
    await expect(outcome).to_contain_text("at most 7.")
    await expect(page.locator(".scroll tbody tr")).to_contain_text("of 7")

    await drawer.get_by_role("button", name="Check").click()
    await expect(outcome).to_contain_text("1 idle connection tested, 0 failed")
    await tab.operate("Recycle", "pool beta", "1 connection replaced")
    await tab.operate("Pause", "Pause pool beta", "Pause beta: done.")
    await expect(page.locator(".scroll tbody tr")).to_contain_text("paused")
    await tab.operate("Resume", "Resume pool beta", "Resume beta: done.")
    await tab.operate("Evict", "Close pool beta", "Pool beta was evicted")
    await expect(drawer.get_by_role("button", name="Open")).to_be_visible()
    await tab.operate("Open", "Open pool beta", "at most 7.")
    await tab.operate("Drain", "pool beta", "Pool beta is draining")
    await expect(drawer.locator("#timeline")).to_contain_text("pool.draining")


async def test_a_list_that_is_not_whole_says_so(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    ok(await service.client.put("/v1/tenants/acme/pool"), 201)
    [pool] = ok(await service.client.get("/v1/pools"))["items"]

    async def many(route: Route) -> None:
        names = [f"p{len(asked)}-{number}" for number in range(500)]
        asked.append(route.request.url)
        items = [{**pool, "pool_id": name, "tenant": name} for name in names]
        await route.fulfill(json={"items": items, "next_cursor": "more", "matches": 9999})

    asked: list[str] = []
    await tab.page.route("**/v1/pools?*", many)
    await tab.page.goto("/#/pools")
    await expect(tab.page.locator("main")).to_contain_text("the 2,000 with the most waiting")


async def test_the_name_of_a_shared_pool_is_one_line_on_a_phone(service: Api, tab: Tab) -> None:
    await service.tenant("acme", "shared")
    (await service.client.put("/v1/tenants/acme/pool?scope=pool")).raise_for_status()
    [pool] = ok(await service.client.get("/v1/pools"))["items"]
    late = {**pool, "wait_p99_ms": 4900.0, "waiting": 184}

    async def answer(route: Route) -> None:
        await route.fulfill(json={"items": [late], "next_cursor": None, "matches": 1})

    await tab.page.route("**/v1/pools?*", answer)
    await tab.page.set_viewport_size({"width": 390, "height": 844})
    await tab.page.goto("/#/pools")
    row = tab.page.locator("main tbody tr")
    await expect(row).to_contain_text("ready, callers late")
    assert await row.locator("th").evaluate(LINES) == 1


async def test_an_action_on_a_shared_pool_says_whom_it_touches(service: Api, tab: Tab) -> None:
    for name in ("acme", "beta"):
        await service.tenant(name, "shared")
    (await service.client.put("/v1/tenants/beta/pool?scope=pool")).raise_for_status()
    page, drawer, dialog = tab.page, tab.page.locator("#drawer"), tab.page.locator("#action")
    await page.goto("/#/tenants/acme")
    await expect(drawer).to_contain_text("shared@local, ready")
    await expect(drawer.locator("#pool-actions")).to_have_count(0)
    await drawer.get_by_role("link", name="shared@local").click()
    await expect(page).to_have_url(f"{tab.address}/#/pools/shared@local")
    await expect(drawer).to_contain_text("2 tenants: acme, beta")
    await drawer.get_by_role("button", name="Pause").click()
    await expect(dialog).to_contain_text("Pause shared@local")
    await expect(dialog).to_contain_text("This affects all 2 tenants of this pool.")
    await dialog.get_by_role("button", name="Pause").click()
    await expect(drawer.get_by_role("button", name="Resume")).to_be_visible()
    await expect(drawer.locator("#timeline")).to_contain_text("pool.paused")
    event = (await service.client.get("/v1/events?action=pool.paused")).json()["items"][0]
    assert (event["pool"], event["tenant"]) == ("shared@local", None)


async def test_a_paused_pool_stays_in_sight_when_it_is_closed(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    for method, path in [("PUT", ""), ("POST", "/pause"), ("DELETE", "")]:
        response = await service.client.request(method, f"/v1/tenants/acme/pool{path}")
        response.raise_for_status()
    assert (await service.client.delete("/v1/tenants/acme/pool")).status_code == 404
    page, drawer = tab.page, tab.page.locator("#drawer")
    await page.goto("/")
    finding = page.locator("#to-do .listed")
    await expect(finding).to_contain_text("Pool acme was paused")
    await expect(finding).to_contain_text("by api")
    await finding.get_by_role("link", name="acme").click()
    await expect(drawer).to_contain_text("by api")
    await page.goto("/#/pools/acme")
    await expect(page.locator(".scroll tbody tr")).to_contain_text("paused")
    await expect(drawer).to_contain_text("by api")
    await expect(drawer.get_by_role("button", name="Evict")).to_have_count(0)
    await drawer.get_by_role("button", name="Resume").click()
    await page.locator("#action").get_by_role("button", name="Resume").click()
    await expect(drawer).to_contain_text("not open")
    await page.goto("/#/tenants/acme")
    await expect(drawer.locator("#refusals")).to_contain_text("pool-not-found")


async def test_looking_at_a_closed_pool_leaves_no_refusal(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    await service.tenant("beta", "shared")
    for view in ("tenants/acme", "pools/acme", "tenants/beta", "pools/shared@local"):
        await tab.page.goto(f"/#/{view}")
        await expect(tab.page.locator("#drawer canvas")).to_have_count(3)
    assert (await service.client.get("/v1/refusals")).json()["items"] == []


async def test_a_period_is_part_of_the_address(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    ok(await service.query("/v1/tenants/acme", "SELECT 1"))
    page, drawer = tab.page, tab.page.locator("#drawer")
    steps: list[str] = []
    page.on("request", lambda request: steps.append(request.url))
    await page.goto("/#/pools/acme?range=7d")
    await expect(drawer.locator("canvas")).to_have_count(3)
    assert any("stats/history" in url and "step_seconds=3600" in url for url in steps)
    await drawer.get_by_role("button", name="All").click()
    await expect(page).to_have_url(f"{tab.address}/#/pools/acme?range=all")
    await drawer.get_by_role("button", name="Custom").click()
    await drawer.get_by_label("From").fill("2026-01-01T00:00")
    await drawer.get_by_label("to", exact=True).fill("2026-01-01T01:00")
    await drawer.get_by_role("button", name="Show").click()
    await expect(drawer.locator("#timeline")).to_contain_text("No events in this period.")
    assert "from=2026-01-01T00%3A00" in page.url


async def test_a_pool_whose_callers_were_late_is_not_shown_as_well(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    ok(await service.client.put("/v1/tenants/acme/pool"), 201)
    [pool] = ok(await service.client.get("/v1/pools"))["items"]
    page, p99 = tab.page, [99.0]

    async def late(route: Route) -> None:
        shown = {**pool, "state": "ready", "wait_p99_ms": p99[0]}
        await route.fulfill(json={"items": [shown], "next_cursor": None, "matches": 1})

    await page.route("**/v1/pools?*", late)
    await page.goto("/#/pools")
    await expect(page.locator(".scroll .badge.good")).to_have_text("ready")
    p99[0] = 479.0
    await expect(page.locator(".scroll .badge.warn")).to_have_text("ready, callers late")
    await expect(page.locator(".scroll .badge.good")).to_have_count(0)


async def test_details_have_the_only_bar_to_scroll(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    await tab.page.goto("/#/tenants")
    bar = "getComputedStyle(document.documentElement).scrollbarWidth"
    assert await tab.page.evaluate(bar) == "auto"
    await tab.page.goto("/#/tenants/acme")
    await expect(tab.page.locator("#drawer")).to_be_visible()
    assert await tab.page.evaluate(bar) == "none"
