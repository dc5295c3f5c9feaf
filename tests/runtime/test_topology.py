"""The declared servers, as the settings describe them."""

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from app.pools.servers.admin_connections import ADMIN_CONNECTIONS
from app.pools.servers.server_requirements import _of_budget
from app.runtime.topology import CATALOG_CONNECTIONS, start_topology
from app.settings import Settings
from tests.fixtures.app import endpoint
from tests.fixtures.postgres import Database


@pytest.mark.parametrize("is_beside", [True, False], ids=["on this server", "elsewhere"])
async def test_no_budget_that_is_set_takes_the_catalogs_connections(
    database: Database, tmp_path: Path, *, is_beside: bool
) -> None:
    catalog = database if is_beside else replace(database, host="elsewhere.test")
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "servers": {"local": {**endpoint(database), "budget": 10_000}},
            "catalog": endpoint(catalog),
        }
    )
    async with AsyncExitStack() as stack:
        server = (await start_topology(settings, stack)).servers["local"]
        stack.push_async_callback(server.close)
        await server.start()
        assert server.limits is not None
        usable = server.limits.max_connections - server.limits.reserved - ADMIN_CONNECTIONS
        assert server.limit == usable - (CATALOG_CONNECTIONS if is_beside else 0)
        budget = _of_budget(server)
        assert not budget.is_met
        assert budget.detail.endswith(", fewer than the 10000 that are set")
