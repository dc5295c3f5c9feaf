"""API keys in a browser: requested, rejected, accepted, and stored in the tab only."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from app.api.auth.key_scope import KeyScope
from tests.api.ui.conftest import SETTINGS
from tests.api.ui.test_page import callers_of, violations
from tests.fixtures.app import Api, ApiWith
from tests.fixtures.browser import Tab
from tests.fixtures.keys import Keyring

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    """A key with every scope, one that can only read, and one that can read only acme."""
    ring = Keyring(tmp_path / "keys.json")
    ring.make("admin")
    ring.make("reader", KeyScope.READ)
    ring.make("bound", KeyScope.READ, tenants=("acme",))
    return ring


@pytest_asyncio.fixture(loop_scope="session")
async def service(api_with: ApiWith, ring: Keyring) -> AsyncIterator[Api]:
    """A service that requires keys."""
    keys = {"keys_file": ring.path}
    async with api_with(**SETTINGS, **keys) as running:
        running.client.headers.update(ring.headers("admin"))
        yield running


async def give(page: Page, key: str) -> None:
    """Type a key into the dialog, and use it."""
    await page.locator("#key").fill(key)
    await page.get_by_role("button", name="Use key").click()


async def test_a_key_is_requested_and_stored_in_the_tab_only(
    service: Api, tab: Tab, ring: Keyring
) -> None:
    await service.tenant("acme")
    page, dialog = tab.page, tab.page.locator("#key-dialog")
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    await page.goto("/")
    await expect(dialog).to_contain_text("requires an API key")
    assert await violations(page) == []

    wrong = ring.tokens["admin"][:-1] + ("a" if ring.tokens["admin"][-1] != "a" else "b")
    await give(page, wrong)
    await expect(dialog).to_contain_text("rejected this key")
    await give(page, "ключ")
    await expect(dialog).to_contain_text("rejected this key")
    await give(page, f"  {ring.tokens['admin']} ")
    await expect(dialog).to_be_hidden()
    await expect(page.locator("#tiles")).to_contain_text("Tenants1")
    await expect(page.locator("#key")).to_have_count(0)

    await page.reload()
    await expect(page.locator("#tiles")).to_contain_text("Tenants1")
    stored = await tab.context.storage_state()
    assert not stored["cookies"]
    assert not stored["origins"]
    await page.goto("/#/keys")
    await expect(page.locator("tbody tr")).to_have_count(3)
    await expect(page.locator("tbody")).to_contain_text("reader")
    assert "$POOLKEEPER_API_KEY" in (await page.get_by_title("curl").get_attribute("title") or "")
    token = ring.tokens["admin"]
    assert await page.evaluate("Object.values(sessionStorage)") == [token]
    assert not [address for address in addresses if token in address or wrong in address]
    assert token not in await page.content()

    other = await tab.context.new_page()
    await other.goto("/")
    await expect(other.locator("#key-dialog")).to_be_visible()


async def test_a_revoked_key_is_requested_again(service: Api, tab: Tab, ring: Keyring) -> None:
    page = tab.page
    await page.goto("/")
    await give(page, ring.tokens["reader"])
    await expect(page.locator("#tiles")).to_contain_text("Tenants0")
    ring.revoke("reader")
    await expect(page.locator("#key-dialog")).to_contain_text("rejected this key")
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator("#error")).to_contain_text("key")
    await expect(page.locator("#key-dialog")).to_be_hidden()


async def test_a_missing_scope_is_reported(service: Api, tab: Tab, ring: Keyring) -> None:
    await service.tenant("acme")
    page = tab.page
    await page.goto("/")
    await give(page, ring.tokens["reader"])
    async with callers_of(service, "acme", callers=8):
        line = page.locator(".recommendation", has_text="acme")
        await line.get_by_role("button", name="Apply").click()
        await expect(page.locator("#outcome")).to_contain_text("lacks the required scope operate")
    await expect(page.locator("#key-dialog")).to_be_hidden()
    pool = await service.client.get("/v1/tenants/acme/pool")
    assert pool.json()["desired"]["max_size"] == 2


async def test_a_key_bound_to_tenants_is_asked_nothing_about_nodes(
    service: Api, tab: Tab, ring: Keyring
) -> None:
    await service.tenant("acme")
    (await service.client.put("/v1/nodes/edge", json={})).raise_for_status()
    page = tab.page
    await page.goto("/#/nodes")
    await give(page, ring.tokens["bound"])
    await expect(page.locator(".empty")).to_contain_text("This key is bound to tenants.")
    await page.goto("/#/tenants/acme")
    await expect(page.locator("#drawer canvas")).to_have_count(3)
    refused = (await service.client.get("/v1/refusals")).json()["items"]
    assert [each for each in refused if "nodes" in each["path"]] == []
