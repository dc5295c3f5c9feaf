"""Postgres restarts under load: callers get errors, nobody hangs, everything recovers."""

import signal

import pytest

from app.domain.tenant import PoolStrategy
from app.embedded import EmbeddedPostgres
from tests.fixtures.load import load_on
from tests.fixtures.pools import provisioned
from tests.fixtures.private_postgres import restarted, superuser_of
from tests.fixtures.watch import watched_manager_on


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_restart_under_load_heals(
    private_postgres: EmbeddedPostgres, how: signal.Signals
) -> None:
    database = await superuser_of(private_postgres)
    async with watched_manager_on(database) as manager:
        for name, strategy in zip("abc", PoolStrategy, strict=True):
            await provisioned(manager, name, strategy)
        async with load_on(manager, "a", "b", "c") as load:
            await load.goes_on()
            await restarted(private_postgres, how)
            await load.goes_on_without_failure()
        assert load.failures
