"""The page of a standby, which forwards every request, in a browser."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.api.ui.conftest import SETTINGS
from tests.fixtures.app import Api, serving
from tests.fixtures.browser import Tab
from tests.fixtures.listening import listening
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.asyncio(loop_scope="session")


def url_of(listener: socket.socket) -> str:
    """The URL where it listens."""
    host, port = listener.getsockname()
    return f"http://{host}:{port}"


@pytest_asyncio.fixture(loop_scope="session")
async def active(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> AsyncIterator[tuple[Api, AsyncExitStack]]:
    """The active instance, which the browser does not use; and what ends it."""
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = url_of(listener)
        directory = tmp_path / "active"
        api = await stack.enter_async_context(
            serving(database, catalog_database, directory, advertise_url=url, **SETTINGS)
        )
        await stack.enter_async_context(listening(api.app, listener=listener.dup()))
        yield api, stack


@pytest_asyncio.fixture(loop_scope="session")
async def service(
    active: tuple[Api, AsyncExitStack],
    listener: socket.socket,
    database: Database,
    catalog_database: Database,
    tmp_path: Path,
) -> AsyncIterator[Api]:
    """The standby; the browser sends its requests there."""
    url = url_of(listener)
    async with serving(
        database, catalog_database, tmp_path / "standby", advertise_url=url, **SETTINGS
    ) as standby:
        yield standby


async def test_a_standby_shows_the_active_instance_and_takes_its_place(
    active: tuple[Api, AsyncExitStack], tab: Tab, database: Database
) -> None:
    api, stack = active
    await api.tenant("acme")
    async with database.connected() as admin:
        await admin.execute("GRANT pg_read_all_data TO tenant_acme")
    # Provisioning again starts an audit at once.
    await api.client.post("/v1/tenants/acme/provision")
    page = tab.page
    await page.goto("/")
    await expect(page.locator("#tiles")).to_contain_text("Tenants1")
    finding = page.locator("#to-do .listed", has_text="memberships")
    await expect(finding).to_be_visible()
    shown = (await api.client.get("/v1/about")).json()["instance"]["url"]
    await expect(page.locator("#instance")).to_have_text(shown.removeprefix("http://"))
    await stack.aclose()
    await expect(page.locator("#instance")).to_have_text(tab.address.removeprefix("http://"))
    await expect(page.locator("#error")).to_be_hidden()
    await expect(page.locator("#tiles")).to_contain_text("Tenants1")
