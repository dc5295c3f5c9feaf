"""Tenants in a browser: found, created, changed, deleted."""

import pytest
from playwright.async_api import Route, expect

from tests.fixtures.app import Api
from tests.fixtures.browser import Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_tenant_is_created_changed_and_deleted(service: Api, tab: Tab) -> None:
    page = tab.page
    await page.goto("/#/tenants")
    await page.get_by_role("button", name="New tenant").click()
    dialog, drawer, outcome = (
        page.locator("#action"),
        page.locator("#drawer"),
        page.locator("#outcome"),
    )
    await dialog.get_by_label("ID", exact=True).fill("acme")
    await dialog.get_by_label("Labels").fill("plan: gold\nregion: eu")
    await expect(dialog.locator(".plan")).to_contain_text("Record tenant acme")
    await dialog.get_by_role("button", name="New tenant").click()
    await expect(page).to_have_url(f"{tab.address}/#/tenants/acme")
    await expect(drawer).to_contain_text("provisioned")
    await expect(drawer).to_contain_text("region: eu")

    await drawer.get_by_role("button", name="Edit").click()
    await dialog.get_by_label("Weight").fill("7")
    await dialog.get_by_role("button", name="Edit").click()
    await expect(drawer).to_contain_text("weight 7")
    await drawer.get_by_role("button", name="Rotate password").click()
    await dialog.get_by_role("button", name="Rotate password").click()
    await expect(outcome).to_contain_text("Role tenant_acme has version 2 of its password")
    shown = (await service.client.get("/v1/tenants/acme")).json()
    assert (shown["weight"], shown["labels"]) == (7, {"plan": "gold", "region": "eu"})

    await drawer.get_by_role("button", name="Delete").click()
    delete = dialog.get_by_role("button", name="Delete")
    await expect(dialog.locator(".plan")).to_contain_text("acme")
    await expect(delete).to_be_disabled()
    await dialog.locator("#retype").fill("acme")
    await delete.click()
    await expect(outcome).to_contain_text("Tenant acme was deleted")
    await expect(drawer).to_have_count(0)
    assert (await service.client.get("/v1/tenants/acme")).status_code == 404


async def test_what_cannot_be_done_is_said_before_it_is_tried(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    page, dialog = tab.page, tab.page.locator("#action")
    await page.goto("/#/tenants")
    await page.get_by_role("button", name="New tenant").click()
    await dialog.get_by_label("ID", exact=True).fill("acme")
    await expect(dialog.locator(".problem")).to_be_visible()
    await expect(dialog.get_by_role("button", name="New tenant")).to_be_disabled()
    await dialog.get_by_label("ID", exact=True).fill("beta")
    await expect(dialog.get_by_role("button", name="New tenant")).to_be_enabled()
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    assert (await service.client.get("/v1/tenants/beta")).status_code == 404


async def test_a_change_of_something_changed_meanwhile_is_refused(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    page, dialog = tab.page, tab.page.locator("#action")
    await page.goto("/#/tenants/acme")
    await page.locator("#drawer").get_by_role("button", name="Edit").click()
    await dialog.get_by_label("Weight").fill("3")
    await expect(dialog.locator(".plan")).to_contain_text("weight 1 → 3")
    await service.client.put("/v1/tenants/acme", json={"weight": 9})
    await dialog.get_by_role("button", name="Edit").click()
    await expect(dialog.locator(".problem")).to_contain_text("changed")
    assert (await service.client.get("/v1/tenants/acme")).json()["weight"] == 9


async def test_tenants_are_searched_and_paged_by_the_service(service: Api, tab: Tab) -> None:
    for number in range(60):
        body = {"strategy": "per_tenant", "labels": {"plan": "gold" if number % 2 else "free"}}
        await service.client.put(f"/v1/tenants/tenant-{number:02}", json=body)
    page, rows = tab.page, tab.page.locator(".scroll tbody tr")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto("/")
    await expect(page.locator("#tiles")).to_contain_text("Tenants60")
    asked.clear()
    await page.get_by_role("link", name="Tenants", exact=True).click()
    await expect(rows).to_have_count(50)
    loads, refreshes = (sum(part in url for url in asked) for part in ("/tenants?", "/stats?"))
    assert loads <= refreshes + 1
    await page.keyboard.press("/")
    await page.keyboard.type("x")
    await expect(rows).to_have_count(0)
    await page.keyboard.press("Backspace")
    await expect(page.locator(".pages")).to_contain_text("1 to 50 of 60")
    await page.get_by_role("button", name="Next").click()
    await expect(rows).to_have_count(10)
    await expect(rows.first).to_contain_text("tenant-50")
    await rows.first.get_by_role("link").click()
    await expect(page.locator("#drawer canvas")).to_have_count(3)
    await expect(page.locator(".pages")).to_contain_text("51 to 60 of 60")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Previous").click()
    await expect(rows.first).to_contain_text("tenant-00")
    await page.keyboard.press("/")
    await page.keyboard.type("NT-3")
    await expect(rows).to_have_count(10)
    assert "search=NT-3" in page.url
    await rows.first.get_by_role("link").click()
    await expect(page).to_have_url(f"{tab.address}/#/tenants/tenant-30?search=NT-3")
    await page.locator("#drawer").get_by_role("link", name="plan: free").click()
    await expect(rows).to_have_count(30)
    lists = [url for url in asked if "/v1/tenants?" in url]
    assert {"limit=50" in url or "limit=1" in url for url in lists} == {True}


async def test_hostile_text_is_shown_as_text(service: Api, tab: Tab) -> None:
    hostile = '<img src=x onerror="document.title=1"><script>document.title = 2</script>'
    labels = {"<b>note</b>": hostile}
    await service.client.put("/v1/tenants/acme", json={"strategy": "per_tenant", "labels": labels})
    page = tab.page

    async def with_hostile_error(route: Route) -> None:
        headers = {**route.request.headers, "if-none-match": ""}
        reply = await route.fetch(headers=headers)
        body = await reply.json()
        body["items"][0] |= {"state": "unavailable", "last_error": hostile, "host": hostile}
        await route.fulfill(json=body)

    async def with_hostile_finding(route: Route) -> None:
        finding = {"check": "server", "severity": "critical", "server": hostile, "detail": hostile}
        rest = {"nodes": [], "node_count": 0, "count": 1, "tenants": [hostile]}
        await route.fulfill(json={"items": [finding | rest]})

    await page.route("**/v1/servers?limit=100", with_hostile_error)
    await page.route("**/v1/findings", with_hostile_finding)
    for view in ("tenants/acme", "servers", "findings", "events"):
        await page.goto(f"/#/{view}")
        await expect(page.locator("h1")).to_be_visible()
        if view != "events":
            await expect(page.locator("body")).to_contain_text(hostile)
        assert await page.locator("img[src=x], #app script").count() == 0
    await page.goto("/#/tenants/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    await expect(page.locator("#drawer h2")).to_contain_text("<script>alert(1)</script>")
    await page.goto("/#/tenants/%E0%A4%A")
    await expect(page.locator("#drawer h2")).to_contain_text("%E0%A4%A")
