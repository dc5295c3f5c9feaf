"""One server: it recovers from whatever Postgres answers, and counts what it could not end."""

import asyncio
import os
import signal
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import pytest

from app import wire
from app.domain.errors import ConnectFailed, ServerUnavailable
from app.pools import driver
from app.pools.servers.admin_connections import ADMIN_CONNECTIONS
from app.pools.servers.logins import NOT_ACTIVE
from app.pools.servers.orphaned_backends import Predecessor
from app.pools.servers.server import Server
from app.pools.servers.server_limits import ServerLimits
from tests.fixtures.pools import account, bench_on, lent, login_to, started_server
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually


async def test_a_probe_survives_whatever_postgres_answers(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started_server(database) as server:
        answers = [asyncpg.DiskFullError("no space left"), asyncpg.InternalServerError("oops")]
        really_connect = asyncpg.connect

        async def connect(**arguments: Any) -> asyncpg.Connection:
            if answers:
                raise answers.pop()
            return await really_connect(**arguments)

        monkeypatch.setattr("asyncpg.connect", connect)
        server.mark_lost(ServerUnavailable("for the test"))
        await eventually(lambda: server.is_available)
        assert answers == []


async def test_a_back_end_that_does_not_end_counts_until_it_does(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pools.servers.server._GONE_DEADLINE", 0.3)
    async with started_server(database, budget=5) as server:
        stubborn = await driver.connect(login_to(database), timeout=5)
        pid = stubborn.get_server_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            stubborn.terminate()
            await server.wait_backend_gone(pid, database.user)
            assert server.budget.limit == 4
            # The budget itself is unchanged; one connection of it is in use.
            assert (server.limit, server.used) == (5, 1)
            await server.refresh()
            assert server.is_available
            assert server.budget.limit == 4
            for unseen in range(10):
                server.count_orphan(-1 - unseen, database.user)
            assert (server.limit, server.budget.limit, server.lost) == (5, 0, 11)
        finally:
            os.kill(pid, signal.SIGCONT)

        async def ended() -> bool:
            await server.refresh()
            return server.budget.limit == 5

        await eventually(ended)


@pytest.mark.parametrize("most", [20, 3], ids=["fewer", "none"])
async def test_a_fixed_budget_is_never_more_than_postgres_has_connections_for(
    database: Database, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """It was restarted with fewer: callers wait for their turn, instead of being refused."""
    limits = ServerLimits(version="18", max_connections=most, reserved=3)
    async with started_server(database, budget=30, catalog_connections=5) as server:
        assert server.limit == 30
        monkeypatch.setattr(ServerLimits, "read", AsyncMock(return_value=limits))
        await server.refresh()
        assert server.limit == server.budget.limit == max(0, most - 3 - ADMIN_CONNECTIONS - 5)


async def test_an_admin_connection_is_refused_at_once_while_the_server_is_away(
    database: Database,
) -> None:
    server = Server("local", login_to(database), max_connecting=1, kept_free=0)
    with pytest.raises(ServerUnavailable, match="not contacted yet"):
        async with asyncio.timeout(60), server.admin():
            pass


async def test_what_must_not_use_a_server_opens_nothing_there_and_keeps_what_it_has(
    database: Database,
) -> None:
    may_connect = True
    async with bench_on(database, may_connect=lambda: may_connect) as bench:
        pool, server, state = bench.pool(), bench.server, account()
        async with lent(pool, state):
            pass
        may_connect = False
        with pytest.raises(ConnectFailed, match="whether it is still the active one"):
            await server.connect(server.admins.login)
        await eventually(lambda: server.is_degraded)
        async with lent(pool, state) as connection:
            assert await connection.raw.fetchval("SELECT 1") == 1
        with pytest.raises(ConnectFailed):
            async with server.admin():
                pass
        may_connect = True
        await eventually(lambda: not server.is_degraded)
        await (await server.connect(server.admins.login)).close()


async def test_an_instance_that_may_no_longer_connect_still_says_what_the_server_answered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_connect = True
    async with started_server(database, may_connect=lambda: may_connect) as server:
        refused = AsyncMock(side_effect=ServerUnavailable("It refused the connection."))
        with monkeypatch.context() as patch:
            patch.setattr(driver, "connect", refused)
            server.mark_lost(ServerUnavailable("It is stopping."))
            await eventually(lambda: server.last_error == "It refused the connection.")
            may_connect = False
            both = f"It refused the connection. {NOT_ACTIVE}"
            await eventually(lambda: server.last_error == both)
            assert server.unavailable_detail.endswith(both)
        may_connect = True
        await eventually(lambda: server.is_available and server.last_error is None)


async def test_a_login_that_ends_too_late_is_not_used(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = True
    log_in = driver.connect

    async def log_in_late(login: wire.Login, **more: Any) -> asyncpg.Connection:
        nonlocal allowed
        connection = await log_in(login, **more)
        allowed = False
        return connection

    async with started_server(database, may_connect=lambda: allowed) as server:
        monkeypatch.setattr(driver, "connect", log_in_late)
        with pytest.raises(ConnectFailed):
            await server.connect(
                replace(login_to(database), settings={"application_name": "poolkeeper/late"})
            )
        monkeypatch.setattr(driver, "connect", log_in)
        allowed = True
        await eventually(lambda: server.last_error is None)


async def test_a_login_under_way_breaks_off_when_another_instance_takes_over(
    database: Database, fault_proxy: FaultProxy
) -> None:
    allowed = True
    through_proxy = replace(login_to(database), host=fault_proxy.host, port=fault_proxy.port)
    async with started_server(database, may_connect=lambda: allowed) as server:
        fault_proxy.hold_new()
        login = asyncio.create_task(server.connect(through_proxy), name="login under way")
        await eventually(lambda: fault_proxy.live)
        allowed = False
        await fault_proxy.pass_through()
        with pytest.raises(ConnectFailed, match="whether it is still the active one") as caught:
            await login
        # It was not completed first.
        assert isinstance(caught.value.__cause__, ServerUnavailable)


async def test_what_a_predecessor_left_is_ended_and_counts_until_it_is_gone(
    database: Database,
) -> None:
    login = login_to(database)
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE tenant_left LOGIN SUPERUSER PASSWORD 'left-behind'")
        try:
            tenants = replace(login, user="tenant_left", password="left-behind")
            left = [
                await driver.connect(tenants, timeout=60),
                await driver.connect(
                    replace(login, settings={"application_name": "poolkeeper 1 admin"}), timeout=60
                ),
            ]
            others = [
                await driver.connect(login, timeout=60),
                # The same role of another installation.
                await driver.connect(replace(tenants, database="postgres"), timeout=60),
            ]
            stubborn = left[0].get_server_pid()
            os.kill(stubborn, signal.SIGSTOP)
            server = Server("local", login, max_connecting=8, kept_free=10, fixed_budget=5)
            predecessor = Predecessor(
                logins=frozenset({("tenant_left", database.database)}),
                admin_name="poolkeeper 1 admin",
            )
            try:
                await server.start(predecessor)
                assert server.is_available
                assert (server.budget.limit, server.limit, server.used) == (4, 5, 1)
                await eventually(left[1].is_closed)
                for other in others:
                    assert await other.fetchval("SELECT 1") == 1
            finally:
                os.kill(stubborn, signal.SIGCONT)
            await eventually(lambda: server.budget.limit == 5)
            await eventually(left[0].is_closed)
            for other in others:
                await other.close()
            await server.close()
        finally:
            await admin.execute("DROP ROLE tenant_left")


async def test_what_was_left_on_a_server_that_is_away_is_ended_when_it_is_back(
    database: Database, fault_proxy: FaultProxy
) -> None:
    login = login_to(database)
    left = await driver.connect(
        replace(login, settings={"application_name": "poolkeeper 1 admin"}), timeout=60
    )
    fault_proxy.refuse()
    server = Server(
        "local",
        replace(login, host=fault_proxy.host, port=fault_proxy.port),
        max_connecting=8,
        kept_free=10,
    )
    await server.start(Predecessor(logins=frozenset(), admin_name="poolkeeper 1 admin"))
    assert not server.is_available
    await fault_proxy.pass_through()
    await eventually(lambda: server.is_available)
    await eventually(left.is_closed)
    await server.close()
