"""The network drops everything: during a query, at the end of a lease, while connecting."""

# ruff: noqa: PT012 - it is the whole block of a lease that raises

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from app.domain.errors import LeaseLost, QueryTimeout, ServerUnavailable
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.network import Network
from tests.fixtures.pools import provisioned, started_server, use
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.queries import run_query
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pools.servers.logins._PATIENCE", 1.0)


@pytest.fixture
async def behind(
    database: Database, fault_proxy: FaultProxy, scrub_roles: None
) -> AsyncIterator[TenantPoolManager]:
    """A manager whose connections all go through the proxy."""
    async with watched_manager_on(database, proxy=fault_proxy) as manager:
        await provisioned(manager, "a")
        yield manager


async def test_during_a_query_the_caller_gets_an_error_at_the_deadline(
    behind: TenantPoolManager, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pools.query.runner._GRACE", 0.1)
    with pytest.raises(QueryTimeout):
        async with behind.lease("a") as connection:
            network.drops_everything(behind)
            await run_query(connection, "SELECT 1", [], max_rows=1, timeout=0.1)
    await network.works()
    await _heals(behind)


async def test_at_the_end_of_a_lease_the_outcome_is_reported_as_unknown(
    behind: TenantPoolManager, network: Network
) -> None:
    with pytest.raises(LeaseLost):
        async with behind.lease("a") as connection:
            await connection.fetchval("SELECT 1")
            network.drops_everything(behind)
    await network.works()
    await _heals(behind)


async def test_a_borrower_that_failed_is_not_held_up(
    behind: TenantPoolManager, network: Network
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with behind.lease("a"):
            network.drops_everything(behind)
            raise ZeroDivisionError
    await network.works()
    await _heals(behind)


async def test_while_connecting_all_waiters_fail_and_the_server_is_away(
    behind: TenantPoolManager, network: Network
) -> None:
    network.drops_everything(behind)
    server = behind.servers["local"]
    callers = [asyncio.create_task(use(behind, "a")) for _ in range(10)]
    await asyncio.wait(callers, timeout=180)
    assert all(isinstance(caller.exception(), ServerUnavailable) for caller in callers)
    await eventually(lambda: not server.is_available)
    with pytest.raises(ServerUnavailable):
        await use(behind, "a")
    await network.works()
    await eventually(lambda: server.is_available)
    await _heals(behind)


async def test_a_login_begun_before_an_outage_does_not_end_the_server_that_is_back(
    database: Database, fault_proxy: FaultProxy
) -> None:
    async with started_server(database, connect_timeout=0.5) as server:
        fault_proxy.black_hole()
        old = replace(server.admins.login, port=fault_proxy.port)
        attempt = asyncio.create_task(server.connect(old))
        await eventually(lambda: fault_proxy.accepted == 1)
        server.mark_lost(ServerUnavailable("for a moment"))
        await eventually(lambda: server.is_available)
        with pytest.raises(ServerUnavailable):
            await attempt
        assert server.is_available
        assert server.generation == 1


async def test_back_ends_stranded_by_an_outage_are_ended_before_others_take_their_places(
    database: Database, fault_proxy: FaultProxy, network: Network, scrub_roles: None
) -> None:
    """As when a firewall forgets its connections: Postgres sees no end for hours."""
    async with watched_manager_on(database, proxy=fault_proxy, budget=5) as manager:
        await provisioned(manager, "a")
        async with AsyncExitStack() as holders:
            for _ in range(5):
                await holders.enter_async_context(manager.lease("a"))
        network.drops_everything(manager)
        with pytest.raises(ServerUnavailable):
            await use(manager, "a")
        network.strands()
        await eventually(lambda: manager.servers["local"].is_available)
        async with load_on(manager, "a", clients=10) as load:
            await load.goes_on_without_failure()


async def test_under_load_everything_heals_when_the_network_is_back(
    behind: TenantPoolManager, network: Network
) -> None:
    async with load_on(behind, "a") as load:
        await load.goes_on()
        network.drops_everything(behind)
        await asyncio.sleep(1)
        await network.works()
        await load.goes_on_without_failure()


async def _heals(manager: TenantPoolManager) -> None:
    await eventually(lambda: manager.servers["local"].is_available)
    await use(manager, "a")
    [pool] = manager.pools()
    budget = manager.servers["local"].budget
    await eventually(lambda: budget.used == pool.metrics.total_connections)
