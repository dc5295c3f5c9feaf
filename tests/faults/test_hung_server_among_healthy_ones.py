"""One of two servers hangs, in two ways: the tenants of the other notice nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import pytest

from app.domain.errors import Unavailable
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.embedded import EmbeddedPostgres
from app.pools.isolation import IsolationStrategy, PerTenantIsolation
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.pools import ROLE_PASSWORDS, set_pool_deadlines, started_server, tenant, through
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.processes import paused
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import TIGHT, watched

STRATEGY = PoolStrategy.PER_TENANT
CONFIG = PoolConfig.per_tenant(acquire_timeout=30)


@pytest.fixture
def no_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove them: whoever waits for the hung server waits for as long as it hangs."""
    set_pool_deadlines(monkeypatch, 300.0)


@dataclass(slots=True)
class Two:
    """A manager of the servers `sick` and `local`, with one tenant on each."""

    manager: TenantPoolManager
    hang: Callable[[], AbstractContextManager[None]]

    @property
    def sick_is_available(self) -> bool:
        return self.manager.servers["sick"].is_available


@pytest.fixture(params=["stopped", "black-holed"])
async def two(
    request: pytest.FixtureRequest,
    private_postgres: EmbeddedPostgres,
    database: Database,
    scrub_roles: None,
) -> AsyncIterator[Two]:
    """Two servers; one of them can be made to hang."""
    own = await superuser_of(private_postgres)
    async with FaultProxy(own.host, own.port) as proxy:

        @contextmanager
        def swallowed() -> Iterator[None]:
            proxy.black_hole()
            try:
                yield
            finally:
                proxy._flow.begin()

        def stopped() -> AbstractContextManager[None]:
            return paused(private_postgres.pid or 0)

        async with managed(through(own, proxy), own, database) as manager:
            yield Two(manager, stopped if request.param == "stopped" else swallowed)


@asynccontextmanager
async def managed(
    sick: Database, directly: Database, well: Database
) -> AsyncIterator[TenantPoolManager]:
    """A manager whose servers both have a tight budget, watched from outside."""
    isolations: dict[PoolStrategy, IsolationStrategy] = {
        STRATEGY: PerTenantIsolation(ROLE_PASSWORDS)
    }
    async with (
        watched(directly, budget=TIGHT),
        watched(well, budget=TIGHT),
        started_server(sick, budget=TIGHT, connect_timeout=2.0) as hanging,
        started_server(well, budget=TIGHT) as healthy,
    ):
        hanging.name = "sick"
        manager = TenantPoolManager(
            {"sick": hanging, "local": healthy}, {STRATEGY: CONFIG}, isolations
        )
        for name, server in (("ill", "sick"), ("well", "local")):
            new = tenant(name, STRATEGY)
            new = replace(new, spec=replace(new.spec, server=server))
            await isolations[STRATEGY].provision(manager.servers[server], new, adopt=False)
            manager.put_tenant(new)
        try:
            yield manager
        finally:
            await manager.close(0)


async def test_its_own_tenants_get_errors_and_the_others_none(two: Two) -> None:
    async with load_on(two.manager, "well", clients=10) as well:
        for _ in range(3):
            await use(two.manager)
        with two.hang():
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await use(two.manager, timeout=1)
            callers = [asyncio.create_task(use(two.manager, timeout=1)) for _ in range(50)]
            await asyncio.wait(callers, timeout=180)
            assert all(isinstance(caller.exception(), Unavailable) for caller in callers)
            await eventually(lambda: not two.sick_is_available)
            await well.goes_on(100)
        await eventually(lambda: two.sick_is_available)
        await use(two.manager)
    assert well.failures == []


@pytest.mark.usefixtures("no_deadlines")
async def test_the_others_are_served_while_its_own_tenants_wait(two: Two) -> None:
    two.manager.servers["sick"]._logins.timeout = 300
    async with load_on(two.manager, "well", clients=10) as well:
        await use(two.manager)
        with two.hang():
            callers = [asyncio.create_task(use(two.manager, timeout=300)) for _ in range(50)]
            await well.goes_on(200)
            assert not any(caller.done() for caller in callers)
        await asyncio.wait_for(asyncio.gather(*callers), 180)
    assert well.failures == []


async def use(manager: TenantPoolManager, timeout: float | None = None) -> None:
    """One lease on the server that may hang."""
    async with manager.lease("ill", timeout=timeout) as connection:
        assert await connection.fetchval("SELECT 42") == 42
