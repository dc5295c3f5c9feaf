"""Credentials of applications in a browser: created, shown once, revoked."""

import pytest
from playwright.async_api import expect

from tests.api.ui.test_page import violations
from tests.fixtures.app import Api
from tests.fixtures.browser import Tab
from tests.fixtures.reporting import reporting_node

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_password_is_shown_once_and_its_credential_revoked(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    async with reporting_node(service.client, address="pools.example:6432"):
        await _created_and_revoked(service, tab)


async def _created_and_revoked(service: Api, tab: Tab) -> None:
    page, dialog, drawer = tab.page, tab.page.locator("#action"), tab.page.locator("#drawer")
    outcome, rows = page.locator("#outcome"), page.locator("#credentials tbody tr")
    issued = drawer.locator("#issued")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto("/#/tenants/acme")
    await expect(drawer).to_contain_text("Credentials of applications")
    assert not any("acme/credentials" in url for url in asked)
    await drawer.get_by_role("button", name="Show credentials").click()
    await drawer.get_by_role("button", name="New credential").click()
    await dialog.get_by_label("Name").fill("Bad Name")
    # The service says it; the browser does not add its own message.
    await expect(dialog.locator(".problem")).to_contain_text("Must be 1 to 48 of a-z")
    assert await dialog.locator("form").evaluate("form => form.checkValidity()")
    await dialog.get_by_label("Name").fill("web")
    await dialog.get_by_label("Days until it expires").fill("90")
    await expect(dialog.locator(".plan")).to_contain_text("Record credential acme.web")
    await dialog.get_by_role("button", name="New credential").click()
    await expect(issued.locator("code")).to_have_count(3)
    password, for_drivers, for_sql = await issued.locator("code").all_inner_texts()
    assert for_drivers == f"postgresql://acme.web:{password}@pools.example:6432/acme"
    assert for_sql == f"postgresql://acme.web:{password}@{tab.address[7:]}/acme"
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("acme.web")
    await expect(drawer.get_by_role("columnheader", name="Last seen")).to_be_visible()
    assert await violations(page) == []
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await issued.get_by_title("Copy: For any driver").click()
    await expect(issued).to_contain_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == for_drivers

    await rows.get_by_role("button", name="Revoke").click()
    await expect(dialog.locator(".plan")).to_contain_text("Forget credential acme.web")
    await dialog.get_by_role("button", name="Revoke").click()
    await expect(outcome).to_contain_text("Credential acme.web was revoked.")
    await expect(rows).to_have_count(0)
    await expect(issued).to_have_count(0)
    assert password not in await page.content()
    assert (await service.client.get("/v1/tenants/acme/credentials")).json()["items"] == []


async def test_on_a_phone_the_new_password_is_seen_at_once(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    page, dialog, drawer = tab.page, tab.page.locator("#action"), tab.page.locator("#drawer")
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.goto("/#/tenants/acme")
    await drawer.get_by_role("button", name="Show credentials").click()
    await drawer.get_by_role("button", name="New credential").click()
    await dialog.get_by_label("Name").fill("web")
    await dialog.get_by_role("button", name="New credential").click()
    await expect(drawer.locator("#issued")).to_be_in_viewport(ratio=1.0)
    await expect(page.locator("#outcome")).to_contain_text("Credential acme.web was created.")
    shown = await drawer.locator("#issued").bounding_box()
    said = await page.locator("#outcome").bounding_box()
    assert shown is not None
    assert said is not None
    assert shown["y"] + shown["height"] <= said["y"]


async def test_a_shared_tenant_has_no_such_section(service: Api, tab: Tab) -> None:
    await service.tenant("acme", "shared")
    await tab.page.goto("/#/tenants/acme")
    await expect(tab.page.locator("#drawer")).to_contain_text("shared on local")
    await expect(tab.page.locator("#credentials-bar")).to_have_count(0)


async def test_while_no_node_is_ready_a_new_credential_says_so(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    declared = await service.client.put("/v1/nodes/edge", json={"address": "pools.example:6432"})
    assert declared.status_code == 201
    drawer, dialog = tab.page.locator("#drawer"), tab.page.locator("#action")
    await tab.page.goto("/#/tenants/acme")
    await drawer.get_by_role("button", name="Show credentials").click()
    await drawer.get_by_role("button", name="New credential").click()
    await dialog.get_by_label("Name").fill("web")
    await dialog.get_by_role("button", name="New credential").click()
    await expect(drawer.locator("#issued")).to_contain_text("No ready node serves this tenant")
