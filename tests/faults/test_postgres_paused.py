"""Postgres hangs (SIGSTOP, as on a stalled machine) under load, and goes on later."""

import pytest

from app.domain.errors import Unavailable
from app.domain.tenant import PoolStrategy
from app.embedded import EmbeddedPostgres
from tests.fixtures.load import load_on
from tests.fixtures.pools import provisioned, set_pool_deadlines
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.processes import paused
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


async def test_callers_fail_while_it_hangs_and_succeed_when_it_goes_on(
    private_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await superuser_of(private_postgres)
    async with watched_manager_on(database, connect_timeout=2.0) as manager:
        for name, strategy in zip("abc", PoolStrategy, strict=True):
            await provisioned(manager, name, strategy)
        server = manager.servers["local"]
        async with load_on(manager, "a", "b", "c") as load:
            await load.goes_on()
            with paused(private_postgres.pid or 0), monkeypatch.context() as patch:
                set_pool_deadlines(patch, 0.3)
                await eventually(lambda: not server.is_available)
                with pytest.raises(Unavailable):
                    async with manager.lease("a"):
                        pass
            await load.goes_on_without_failure()
        assert load.failures
