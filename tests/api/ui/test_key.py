"""Keys in a browser: asked for, refused, taken, and kept nowhere but in the tab."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from app.api.auth.api_key import KeyScope
from tests.api.ui.test_page import crowd, serious
from tests.fixtures.browser import Tab
from tests.fixtures.keys import Keyring
from tests.fixtures.postgres import Database
from tests.fixtures.served import Served, served


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    """A key that may do everything, and one that may only look."""
    ring = Keyring(tmp_path / "keys.json")
    ring.make("admin")
    ring.make("looker", KeyScope.READ)
    return ring


@pytest_asyncio.fixture
async def service(
    database: Database,
    catalog_database: Database,
    scrub_roles: None,
    tmp_path: Path,
    ring: Keyring,
) -> AsyncIterator[Served]:
    """A service that wants keys, and samples and advises twice a second."""
    async with served(
        tmp_path,
        tenants_in=database,
        catalog_in=catalog_database,
        keys_file=ring.path,
        poll_interval_seconds=0.5,
        advisor_interval_seconds=0.5,
        per_tenant_pool_size=2,
    ) as running:
        running.client.headers.update(ring.headers("admin"))
        yield running


async def give(page: Page, key: str) -> None:
    """Type a key into the dialog, and use it."""
    await page.locator("#key").fill(key)
    await page.get_by_role("button", name="Use it").click()


async def test_a_key_is_asked_for_and_kept_in_the_tab_alone(
    service: Served, tab: Tab, ring: Keyring
) -> None:
    await service.tenant("acme")
    page, dialog = tab.page, tab.page.locator("#key-dialog")
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    await page.goto("/")
    await expect(dialog).to_contain_text("asks for a key")
    assert await serious(page) == []

    wrong = ring.tokens["admin"][:-1] + ("a" if ring.tokens["admin"][-1] != "a" else "b")
    await give(page, wrong)
    await expect(dialog).to_contain_text("does not take this key")
    await give(page, "ключ")
    await expect(dialog).to_contain_text("does not take this key")
    await give(page, f"  {ring.tokens['admin']} ")
    await expect(dialog).to_be_hidden()
    await expect(page.locator("#headline")).to_contain_text("1 tenants")
    await expect(page.locator("#key")).to_have_value("")

    await page.reload()
    await expect(page.locator("#headline")).to_contain_text("1 tenants")
    kept = await tab.context.storage_state()
    assert not kept["cookies"]
    assert not kept["origins"]
    token = ring.tokens["admin"]
    assert await page.evaluate("Object.values(sessionStorage)") == [token]
    assert not [address for address in addresses if token in address or wrong in address]
    assert token not in await page.content()

    other = await tab.context.new_page()
    await other.goto("/")
    await expect(other.locator("#key-dialog")).to_be_visible()


async def test_a_key_that_is_taken_back_is_asked_for_again(
    service: Served, tab: Tab, ring: Keyring
) -> None:
    page = tab.page
    await page.goto("/")
    await give(page, ring.tokens["looker"])
    await expect(page.locator("#headline")).to_contain_text("0 tenants")
    ring.revoke("looker")
    await expect(page.locator("#key-dialog")).to_contain_text("does not take this key")
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator("#trouble")).to_contain_text("key")
    await expect(page.locator("#key-dialog")).to_be_hidden()


async def test_who_may_only_look_is_told_what_is_missing(
    service: Served, tab: Tab, ring: Keyring
) -> None:
    await service.tenant("acme")
    page = tab.page
    await page.goto("/")
    await give(page, ring.tokens["looker"])
    async with crowd(service, "acme", callers=8):
        line = page.locator("#advice li", has_text="acme")
        await line.get_by_role("button", name="Apply").click()
        await expect(page.locator("#outcome")).to_contain_text("a key with the scope operate")
    await expect(page.locator("#key-dialog")).to_be_hidden()
    pool = await service.client.get("/v1/tenants/acme/pool")
    assert pool.json()["desired"]["max_size"] == 2
