"""One server: it heals from whatever Postgres says, and counts what it could not end."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import asyncpg
import pytest

from app.domain.errors import ServerUnavailable
from app.pools import driver
from app.pools.server import Server
from tests.fixtures.pools import login_to, started_server
from tests.fixtures.postgres import Database
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
    monkeypatch.setattr("app.pools.server._GONE_DEADLINE", 0.3)
    async with started_server(database, budget=5) as server:
        stubborn = await driver.connect(login_to(database), timeout=5)
        pid = stubborn.get_server_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            stubborn.terminate()
            await server.wait_backend_gone(pid, database.user)
            assert server.budget.limit == 4
            # The budget itself is what it was; one connection of it is in use.
            assert (server.limit, server.used) == (5, 1)
            await server.refresh()
            assert server.is_available
            assert server.budget.limit == 4
        finally:
            os.kill(pid, signal.SIGCONT)

        async def ended() -> bool:
            await server.refresh()
            return server.budget.limit == 5

        await eventually(ended)


async def test_an_admin_connection_is_refused_at_once_while_the_server_is_away(
    database: Database,
) -> None:
    server = Server("local", login_to(database), max_connecting=1, kept_free=0)
    with pytest.raises(ServerUnavailable, match="not contacted yet"):
        async with asyncio.timeout(60), server.admin():
            pass
