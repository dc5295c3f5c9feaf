"""New logins hang, and what is open works: who has connections is served, who needs one is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.domain.errors import PoolTimeout, ServerUnavailable, Unavailable
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.pools import pids, provisioned, use
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


@pytest.fixture
async def behind(
    database: Database, fault_proxy: FaultProxy, scrub_roles: None
) -> AsyncIterator[TenantPoolManager]:
    """A manager behind the proxy, whose tenant `working` has connections and `new` has none."""
    async with watched_manager_on(database, proxy=fault_proxy, connect_timeout=0.5) as manager:
        for name in ("working", "new"):
            await provisioned(manager, name)
        await use(manager, "working")
        [pool] = manager.pools()
        pool.resize(replace(pool.size, min_size=2, max_size=2))
        await eventually(lambda: pool.metrics.idle_connections == 2)
        yield manager


async def test_who_has_connections_keeps_them_and_is_served(
    behind: TenantPoolManager, fault_proxy: FaultProxy, database: Database
) -> None:
    server, before = behind.servers["local"], await pids(database)
    async with load_on(behind, "working") as load:
        fault_proxy.hold_new()
        with pytest.raises(ServerUnavailable, match="did not answer the login"):
            await use(behind, "new")
        await eventually(lambda: server.last_error)
        with pytest.raises(Unavailable, match="did not answer the login"):
            await use(behind, "new")
        await load.goes_on(100)
        assert server.is_available
        assert await pids(database) == before
        await fault_proxy.pass_through()
        await eventually(lambda: not server.last_error)
        await use(behind, "new")
    assert load.failures == []
    assert server.generation == 0


async def test_a_caller_whose_patience_ends_first_is_told_why(
    behind: TenantPoolManager, fault_proxy: FaultProxy
) -> None:
    fault_proxy.hold_new()
    with pytest.raises(PoolTimeout, match="has not answered the login yet"):
        await use(behind, "new", timeout=0.1)
    with pytest.raises(Unavailable):
        await use(behind, "new")
    with pytest.raises(PoolTimeout, match=r"Opening one failed: .* did not answer the login"):
        await use(behind, "new", timeout=0.01)
    await fault_proxy.pass_through()


async def test_who_has_only_idle_connections_that_do_not_answer_loses_the_server(
    behind: TenantPoolManager, fault_proxy: FaultProxy
) -> None:
    fault_proxy.black_hole()
    with pytest.raises(Unavailable):
        await use(behind, "new")
    await eventually(lambda: not behind.servers["local"].is_available)
    await fault_proxy.pass_through()
    await eventually(lambda: behind.servers["local"].is_available)
    await use(behind, "new")
    await use(behind, "working")


async def test_a_lease_that_comes_back_meanwhile_shows_that_the_server_works(
    behind: TenantPoolManager, fault_proxy: FaultProxy
) -> None:
    server = behind.servers["local"]
    async with behind.lease("working"), behind.lease("working"):
        fault_proxy.refuse()
        with pytest.raises(ServerUnavailable, match="cannot be reached"):
            await use(behind, "new")
        await eventually(server._judging.locked)
    await eventually(lambda: server.last_error)
    assert server.is_available
    await use(behind, "working")
    await fault_proxy.pass_through()


async def test_a_server_whose_leases_all_hang_is_lost(
    behind: TenantPoolManager, fault_proxy: FaultProxy
) -> None:
    async with behind.lease("working", transaction=False) as connection:
        async with behind.lease("working", transaction=False):
            fault_proxy.black_hole()
            with pytest.raises(Unavailable):
                await use(behind, "new")
            await eventually(lambda: not behind.servers["local"].is_available)
            await fault_proxy.pass_through()
        assert await connection.fetchval("SELECT 42") == 42
    await eventually(lambda: behind.servers["local"].is_available)
    await use(behind, "working")
