"""One browser for all tests, on the session's event loop; each test has its service and its tab."""

import shutil
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, async_playwright, expect

from tests.fixtures.app import Api, ApiWith
from tests.fixtures.browser import Tab
from tests.fixtures.listening import listening
from tests.fixtures.missing import missing

# Without these it contacts its maker's hosts, and does not start as root.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--process-per-site",
]

_TIMEOUT_MS = 20_000

# It polls and recommends twice a second.
SETTINGS = {
    "poll_interval_seconds": 0.5,
    "advisor_interval_seconds": 0.5,
    "per_tenant_pool_size": 2,
}


@pytest.fixture(scope="session")
def listener() -> Iterator[socket.socket]:
    """The one port where the services of all tests listen, one after another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def context(listener: socket.socket) -> AsyncIterator[BrowserContext]:
    """Headless Chromium, kept warm: in its own context each test would load the page slowly."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing("There is no chromium on this machine: the page was not tested.")
    host, port = listener.getsockname()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=FLAGS)
        context = await browser.new_context(base_url=f"http://{host}:{port}")
        context.set_default_timeout(_TIMEOUT_MS)
        expect.set_options(timeout=_TIMEOUT_MS)
        yield context
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def service(api_with: ApiWith) -> AsyncIterator[Api]:
    """A service without keys."""
    async with api_with(**SETTINGS) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def tab(context: BrowserContext, listener: socket.socket, service: Api) -> AsyncIterator[Tab]:
    """An empty tab; fails on script errors and on requests to other hosts."""
    async with listening(service.app, most=1000, listener=listener.dup()) as (host, port):
        if not context.pages:
            # It stays open: as long as there is one, the service's next tab has its process.
            await (await context.new_page()).goto("/livez")
        tab = Tab(await context.new_page(), context, f"http://{host}:{port}")
        yield tab
        # Closing the tab would break a route that is still being handled.
        await tab.page.unroute_all(behavior="wait")
        await tab.forget_all()
    assert tab.errors == []
    assert tab.foreign_requests == []
