"""The page in a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.fixtures.browser import Tab
from tests.fixtures.served import Served

SERIOUS = {"serious", "critical"}


@asynccontextmanager
async def callers_of(service: Served, tenant: str, callers: int) -> AsyncIterator[None]:
    """Callers of one tenant; each repeatedly holds a connection for a while."""

    async def call() -> None:
        while True:
            await service.query(tenant, "SELECT pg_sleep(0.2)")

    tasks = [asyncio.create_task(call(), name=f"caller {number}") for number in range(callers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def serious(page: Page) -> list[str]:
    """Serious accessibility problems that axe finds."""
    found = await Axe().run(page)
    return [
        f"{each['id']}: {each['nodes'][0]['html']}"
        for each in found.response["violations"]
        if each["impact"] in SERIOUS
    ]


async def test_waiting_callers_appear_and_their_recommendation_is_applied(
    service: Served, tab: Tab
) -> None:
    await service.tenant("acme")
    page = tab.page
    await page.goto("/")
    await expect(page.locator("#no-pools")).to_contain_text("No pool is open")
    async with callers_of(service, "acme", callers=8):
        row = page.locator("#rows tr", has_text="acme")
        await expect(row).to_have_class("waiting")
        advice = page.locator("#actions li", has_text="acme")
        await advice.get_by_role("button", name="Apply").click()
        await expect(row).not_to_contain_text("of 2")
    await expect(page.locator("#headline")).to_contain_text("1 tenants")


async def test_a_pool_is_opened_by_keyboard_resized_and_evicted(service: Served, tab: Tab) -> None:
    for name in ("acme", "beta"):
        await service.tenant(name)
        assert await service.query(name, "SELECT 1") == 200
    page = tab.page
    await page.goto("/")
    await expect(page.locator("#count")).to_have_text("2 of 2")
    await page.keyboard.press("/")
    await page.keyboard.type("bet")
    await expect(page.locator("#count")).to_have_text("1 of 2")
    await page.keyboard.press("Enter")
    drawer = page.locator("#drawer")
    await expect(drawer.locator("h2")).to_have_text("beta")
    await expect(drawer.locator("canvas")).to_have_count(3)
    await expect(drawer.locator("#drawer-events")).to_contain_text("tenant.provisioned")

    await drawer.get_by_label("max_size").fill("7")
    await drawer.get_by_role("button", name="Resize").click()
    await page.keyboard.press("Escape")
    await expect(drawer).to_be_hidden()
    await expect(page.locator("#rows tr", has_text="beta")).to_contain_text("of 7")

    await page.get_by_role("button", name="beta", exact=True).click()
    await drawer.get_by_role("button", name="Evict").click()
    await page.get_by_role("button", name="Yes").click()
    await expect(drawer.locator("#drawer-facts")).to_contain_text("not open")
    await expect(page.locator("#rows tr")).to_have_count(0)  # the search still contains "bet"
    gone = await service.client.get("/v1/tenants/beta/pool")
    assert gone.json()["open"] is False


async def test_an_unreachable_service_is_reported_until_it_responds(
    service: Served, tab: Tab
) -> None:
    page = tab.page
    await page.goto("/")
    await expect(page.locator("#headline")).to_contain_text("0 tenants")
    await tab.context.set_offline(offline=True)
    await expect(page.locator("#error")).to_contain_text("does not respond")
    await tab.context.set_offline(offline=False)
    await expect(page.locator("#error")).to_be_hidden()


async def test_both_themes_have_no_serious_accessibility_problems(
    service: Served, tab: Tab
) -> None:
    await service.tenant("acme")
    page = tab.page
    await page.goto("/")
    async with callers_of(service, "acme", callers=8):
        await expect(page.locator("#actions .recommendation")).to_be_visible()
        await page.get_by_role("button", name="acme", exact=True).first.click()
        await expect(page.locator("#drawer canvas")).to_have_count(3)
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            assert await serious(page) == []


async def test_a_phone_shows_the_pools_without_scrolling_sideways(
    service: Served, tab: Tab
) -> None:
    name = "a-tenant-whose-name-is-as-long-as-a-name-can-be"
    await service.tenant(name)
    opened = await service.client.put(f"/v1/tenants/{name}/pool", json={"max_size": 10_000})
    opened.raise_for_status()
    page = tab.page
    await page.set_viewport_size({"width": 390, "height": 800})
    await page.goto("/")
    await expect(page.locator("#rows tr")).to_have_count(1)
    for element in ("document.documentElement", "document.querySelector('.scroll')"):
        assert not await page.evaluate(f"{element}.scrollWidth > {element}.clientWidth"), element
    await expect(page.locator("#rows tr")).to_contain_text("of 10000")


async def test_tab_stays_in_the_drawer(service: Served, tab: Tab) -> None:
    await service.tenant("acme")
    page = tab.page
    await page.goto("/")
    await page.keyboard.press("/")
    await page.keyboard.type("acme")
    await page.keyboard.press("Enter")
    await expect(page.locator("#drawer canvas")).to_have_count(3)
    for key in ("Shift+Tab", "Tab"):
        for _ in range(12):
            await page.keyboard.press(key)
            assert await page.evaluate("document.activeElement.closest('#drawer') !== null")


async def test_a_tenants_drawer_has_no_action_on_the_pool_it_shares(
    service: Served, tab: Tab
) -> None:
    for name in ("acme", "beta"):
        await service.tenant(name, "shared")
    (await service.client.put("/v1/tenants/beta/pool")).raise_for_status()
    page = tab.page
    await page.goto("/")
    await expect(page.locator("#count")).to_have_text("1 of 1")
    await page.keyboard.press("/")
    await page.keyboard.type("acme")
    await page.keyboard.press("Enter")
    drawer = page.locator("#drawer")
    await expect(drawer.locator("h2")).to_have_text("acme")
    await expect(drawer.locator("#drawer-facts")).to_contain_text("shared@local, ready")
    await expect(drawer.locator("#drawer-actions button")).to_have_count(0)

    await drawer.get_by_role("button", name="shared@local").click()
    await expect(drawer.locator("h2")).to_have_text("shared@local")
    await expect(drawer.locator("#drawer-facts")).to_contain_text("2 tenants: acme, beta")
    await expect(drawer.locator("#drawer-actions")).to_contain_text("all 2 tenants")
    await drawer.get_by_role("button", name="Pause").click()
    dialog = page.locator("#confirm-dialog")
    await expect(dialog).to_contain_text("Pause shared@local?")
    await expect(dialog).to_contain_text("This affects all 2 tenants of this pool.")
    await page.get_by_role("button", name="Yes").click()
    await expect(drawer.get_by_role("button", name="Resume")).to_be_visible()
    await expect(drawer.locator("#drawer-events")).to_contain_text("pool.paused")
    event = (await service.client.get("/v1/events?action=pool.paused")).json()["items"][0]
    assert (event["pool"], event["tenant"]) == ("shared@local", None)


async def test_a_paused_pool_stays_in_sight_when_it_is_closed(service: Served, tab: Tab) -> None:
    await service.tenant("acme")
    for method, path in [("PUT", ""), ("POST", "/pause"), ("DELETE", "")]:
        response = await service.client.request(method, f"/v1/tenants/acme/pool{path}")
        response.raise_for_status()
    assert (await service.client.delete("/v1/tenants/acme/pool")).status_code == 404
    page = tab.page
    await page.goto("/")
    await expect(page.locator("#rows tr")).to_contain_text("paused")
    finding = page.locator("#actions .finding")
    await expect(finding).to_contain_text("Pool acme was paused")
    await expect(finding).to_contain_text("by api")
    await finding.get_by_role("button", name="Details").click()
    drawer = page.locator("#drawer")
    await expect(drawer.locator("#drawer-facts")).to_contain_text("by api")
    await expect(drawer.locator("#drawer-refusals")).to_contain_text("pool-not-found")
    await expect(drawer.get_by_role("button", name="Evict")).to_have_count(0)
    await drawer.get_by_role("button", name="Resume").click()
    await expect(drawer.locator("#drawer-facts")).to_contain_text("not open")
    await expect(finding).to_have_count(0)
