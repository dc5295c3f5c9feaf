"""A server hangs (SIGSTOP, as in a stalled machine); the tenants of another notice nothing."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from app.domain.errors import Unavailable
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.embedded import EmbeddedPostgres
from app.pools.isolation import Isolation, PerTenant
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.pools import CREDENTIALS, started_server, tenant
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.processes import family
from tests.fixtures.waiting import eventually


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """The postmaster and all its processes stand still for a block."""
    members = {pid} | family(pid)
    for member in members:
        os.kill(member, signal.SIGSTOP)
    try:
        yield
    finally:
        for member in members:
            os.kill(member, signal.SIGCONT)


async def test_a_hung_server_harms_its_own_tenants_only(
    private_postgres: EmbeddedPostgres,
    database: Database,
    scrub_roles: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for deadline in ("lease._BEGIN_DEADLINE", "roster._CLOSE_DEADLINE", "server._GONE_DEADLINE"):
        monkeypatch.setattr(f"app.pools.{deadline}", 0.3)
    strategy, config = PoolStrategy.PER_TENANT, PoolConfig.per_tenant(acquire_timeout=1)
    isolations: dict[PoolStrategy, Isolation] = {strategy: PerTenant(CREDENTIALS)}
    async with (
        started_server(await superuser_of(private_postgres), connect_timeout=0.5) as hung,
        started_server(database) as healthy,
    ):
        hung.name = "hung"
        manager = TenantPoolManager(
            {"hung": hung, "local": healthy}, {strategy: config}, isolations
        )
        for name in ("sick", "well"):
            new = tenant(name, strategy)
            if name == "sick":
                new = replace(new, spec=replace(new.spec, server="hung"))
            await isolations[strategy].provision(manager.servers[new.spec.server], new, adopt=False)
            manager.know(new)
        try:
            async with load_on(manager, "well") as well:
                for _ in range(3):
                    await _use(manager)
                with paused(private_postgres.pid or 0):
                    for _ in range(3):
                        with pytest.raises(Unavailable):
                            await _use(manager)
                    assert not hung.is_available
                    await well.goes_on(50)
                await eventually(lambda: hung.is_available, deadline=10)
                await _use(manager)
            assert well.failures == []
        finally:
            await manager.close(0)


async def _use(manager: TenantPoolManager) -> None:
    async with asyncio.timeout(5), manager.lease("sick") as connection:
        assert await connection.fetchval("SELECT 42") == 42
