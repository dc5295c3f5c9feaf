"""Postgres restarts under load: callers get errors, nobody hangs, everything recovers."""

from typing import Literal

import pytest

from app.domain.tenant import PoolStrategy
from app.embedded import EmbeddedPostgres
from tests.fixtures.load import load_on
from tests.fixtures.pools import provisioned
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.watch import watched_manager_on


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_under_load_heals(
    private_postgres: EmbeddedPostgres, mode: Literal["fast", "immediate"]
) -> None:
    database = await superuser_of(private_postgres)
    async with watched_manager_on(database) as manager:
        for name, strategy in zip("abc", PoolStrategy, strict=True):
            await provisioned(manager, name, strategy)
        async with load_on(manager, "a", "b", "c") as load:
            await load.goes_on()
            await private_postgres.restart(mode)
            await load.goes_on_without_failure()
        assert load.failures
