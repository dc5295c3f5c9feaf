"""One browser for all tests, on the event loop of the session; a service and a tab for each."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.fixtures.app import Api, serving
from tests.fixtures.browser import Tab
from tests.fixtures.listening import listening
from tests.fixtures.missing import missing
from tests.fixtures.postgres import Database

# Without these it contacts its maker's hosts, and does not start as root.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

_TIMEOUT_MS = 20_000

# It polls and recommends twice a second.
SETTINGS = {
    "poll_interval_seconds": 0.5,
    "advisor_interval_seconds": 0.5,
    "per_tenant_pool_size": 2,
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Headless Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing("There is no chromium on this machine: the page was not tested.")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def service(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> AsyncIterator[Api]:
    """A service without keys."""
    async with serving(database, catalog_database, tmp_path, **SETTINGS) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def tab(browser: Browser, service: Api) -> AsyncIterator[Tab]:
    """An empty tab; fails on script errors and on requests to other hosts."""
    async with listening(service.app, most=1000) as (host, port):
        address = f"http://{host}:{port}"
        context = await browser.new_context(base_url=address)
        context.set_default_timeout(_TIMEOUT_MS)
        expect.set_options(timeout=_TIMEOUT_MS)
        tab = Tab(await context.new_page(), context, address)
        yield tab
        # Closing the context would break a route that is still being handled.
        await tab.page.unroute_all(behavior="wait")
        await context.close()
        assert tab.errors == []
        assert tab.foreign_requests == []
