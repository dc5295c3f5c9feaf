"""New logins hang, open connections work: who has one is served, who needs one gets an error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from app.domain.errors import PoolTimeout, ServerUnavailable, Unavailable
from app.pools.manager import TenantPoolManager
from tests.fixtures.load import load_on
from tests.fixtures.network import Network
from tests.fixtures.pools import finished, pids, provisioned, use
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


@pytest.fixture
async def behind(
    database: Database, fault_proxy: FaultProxy, scrub_roles: None
) -> AsyncIterator[TenantPoolManager]:
    """A manager behind the proxy; its tenant `working` has connections, and `new` has none."""
    async with watched_manager_on(database, proxy=fault_proxy) as manager:
        for name in ("working", "new"):
            await provisioned(manager, name)
        await use(manager, "working")
        [pool] = manager.pools()
        pool.resize(replace(pool.size, min_size=2, max_size=2))
        await eventually(lambda: pool.metrics.idle_connections == 2)
        yield manager


async def test_who_has_connections_keeps_them_and_is_served(
    behind: TenantPoolManager, network: Network, database: Database
) -> None:
    server, before = behind.servers["local"], await pids(database)
    async with load_on(behind, "working") as load:
        network.holds_new(behind)
        with pytest.raises(ServerUnavailable, match="did not answer the login"):
            await use(behind, "new")
        await eventually(lambda: server.last_error)
        with pytest.raises(Unavailable, match="did not answer the login"):
            await use(behind, "new")
        await load.goes_on(100)
        assert server.is_available
        assert await pids(database) == before
        await network.works()
        await eventually(lambda: not server.last_error)
        await use(behind, "new")
    assert load.failures == []
    assert server.generation == 0


async def test_a_caller_whose_timeout_ends_first_gets_the_reason(
    behind: TenantPoolManager, network: Network
) -> None:
    network.holds_new(behind)
    with pytest.raises(PoolTimeout, match="has not been answered yet"):
        await use(behind, "new", timeout=0.1)
    with pytest.raises(Unavailable):
        await use(behind, "new")
    with pytest.raises(PoolTimeout, match=r"Opening one failed: .* did not answer the login"):
        await use(behind, "new", timeout=0.01)
    await network.works()


async def test_who_has_only_idle_connections_that_do_not_answer_loses_the_server(
    behind: TenantPoolManager, network: Network
) -> None:
    network.drops_everything(behind)
    with pytest.raises(Unavailable):
        await use(behind, "new")
    await eventually(lambda: not behind.servers["local"].is_available)
    await network.works()
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
        await eventually(server._refresh_lock.locked)
    await eventually(lambda: server.last_error)
    assert server.is_available
    await use(behind, "working")
    await fault_proxy.pass_through()


async def test_a_server_whose_leases_all_hang_is_lost(
    behind: TenantPoolManager, network: Network
) -> None:
    async with behind.lease("working", transaction=False) as connection:
        async with behind.lease("working", transaction=False):
            network.drops_everything(behind)
            with pytest.raises(Unavailable):
                await use(behind, "new")
            await eventually(lambda: not behind.servers["local"].is_available)
            await network.works()
        assert await connection.fetchval("SELECT 42") == 42
    await eventually(lambda: behind.servers["local"].is_available)
    await use(behind, "working")


async def test_those_who_cannot_log_in_take_nothing_from_those_who_work(
    database: Database, fault_proxy: FaultProxy, network: Network, scrub_roles: None
) -> None:
    async with watched_manager_on(database, proxy=fault_proxy, budget=4) as manager:
        server = manager.servers["local"]
        for name in ("working", "new", "other"):
            await provisioned(manager, name)
        await use(manager, "working")
        [pool] = manager.pools()
        pool.resize(replace(pool.size, min_size=0, max_size=4))
        async with AsyncExitStack() as leases:
            for _ in range(4):
                await leases.enter_async_context(manager.lease("working"))
        network.holds_new(manager)
        async with load_on(manager, "working", clients=1) as load:
            with pytest.raises(Unavailable):
                await use(manager, "new")
            await eventually(lambda: server.is_degraded)
            before = await pids(database)
            for _ in range(5):
                callers = [
                    asyncio.create_task(use(manager, name, timeout=0.3), name="waits")
                    for name in ("new", "other") * 4
                ]
                errors = await finished(callers)
                assert all(isinstance(error, Unavailable) for error in errors)
                assert all("did not answer" in str(error) for error in errors), errors
            assert await pids(database) == before
            await network.works()
            await use(manager, "new", timeout=20)
        assert load.failures == []


async def test_those_who_cannot_log_in_share_what_others_leave_while_only_the_admin_is_refused(
    database: Database, scrub_roles: None
) -> None:
    async with watched_manager_on(database, budget=2) as manager:
        server = manager.servers["local"]
        for name in ("working", "new"):
            await provisioned(manager, name)
        async with manager.lease("working"), manager.lease("working"):
            pass
        admin = server.admins.login
        server.admins.login = replace(admin, password="changed")
        await server.refresh()
        assert server.is_degraded
        await use(manager, "new")
        server.admins.login = admin


async def test_leases_that_take_long_speak_for_a_server_that_refuses_the_admin(
    database: Database, scrub_roles: None
) -> None:
    async with watched_manager_on(database, connect_timeout=1.0) as manager:
        server = manager.servers["local"]
        await provisioned(manager, "working")
        admin = server.admins.login
        server.admins.login = replace(admin, password="changed")
        async with manager.lease("working") as connection:
            await server.refresh()
            assert server.is_degraded
            assert await connection.fetchval("SELECT 42") == 42
        server.admins.login = admin


async def test_idle_connections_are_pinged_whichever_was_used_last(
    database: Database, fault_proxy: FaultProxy, network: Network, scrub_roles: None
) -> None:
    async with watched_manager_on(database, proxy=fault_proxy, budget=12) as manager:
        server, busy = manager.servers["local"], [f"busy-{number}" for number in range(5)]
        for name in ("idle", *busy):
            await provisioned(manager, name)
            await use(manager, name)
        async with AsyncExitStack() as leases:
            for name in busy:
                await leases.enter_async_context(manager.lease(name))
            network.holds_new(manager)
            await server.refresh()
            assert server.is_degraded
            await network.works()
