"""The application with a catalog that can go away, and one that was never started."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from app.main import create_app
from app.settings import Settings
from tests.fixtures.app import Api, ApiWith, serving
from tests.fixtures.driver import Driver, driver_for
from tests.fixtures.keys import Keyring
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy


@pytest.fixture
async def api_apart(
    scrub_roles: None,
    database: Database,
    catalog_database: Database,
    fault_proxy: FaultProxy,
    tmp_path: Path,
) -> AsyncIterator[Api]:
    """The application, whose catalog is reached through `fault_proxy`."""
    distant = replace(catalog_database, host=fault_proxy.host, port=fault_proxy.port)
    async with serving(database, distant, tmp_path) as api:
        yield api


@pytest.fixture
async def keyed_api(api_with: ApiWith, tmp_path: Path) -> AsyncIterator[tuple[Api, Keyring]]:
    """The application, called with the key `all`; the key `bound` can read only the tenant acme."""
    keys = Keyring(tmp_path / "keys.json")
    keys.make("all")
    keys.make("bound", "read", tenants=("acme",))
    async with api_with(keys_file=keys.path) as api:
        api.client.headers.update(keys.headers("all"))
        yield api, keys


@pytest.fixture
async def unstarted(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application without a service: for what needs none, such as refusals."""
    app = create_app(Settings.model_construct(data_dir=tmp_path))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver(standing_api: Api) -> Driver:
    """Neon's driver, with a credential of a tenant of its own."""
    return await driver_for(standing_api)
