"""Every manager here has a tight budget, which is watched from the first moment to the last."""

from collections.abc import AsyncIterator

import pytest

from app.pools.manager import TenantPoolManager
from tests.fixtures.postgres import Database
from tests.fixtures.watch import watched_manager_on


@pytest.fixture
async def manager(scrub_roles: None, database: Database) -> AsyncIterator[TenantPoolManager]:
    """A manager with default settings and no provisioned tenant."""
    async with watched_manager_on(database) as manager:
        yield manager
