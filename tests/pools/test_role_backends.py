"""Busy back-ends without a client end, as far as the service may end them."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from app.pools.role_backends import end_busy
from tests.fixtures.pools import login_to, started_server
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


async def test_a_back_end_that_the_service_may_not_end_keeps_no_other_from_its_end(
    database: Database,
) -> None:
    """It may see the statements of all, as pg_monitor may on many hosters."""
    unique = uuid4().hex[:8]
    admin, theirs, ours = names = [f"{each}_{unique}" for each in ("admin", "theirs", "ours")]
    for name in names:
        await database.administer(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        await database.administer(f"GRANT CONNECT ON DATABASE {database.database} TO {name}")
    await database.administer(f"GRANT pg_monitor, {ours} TO {admin}")
    async with AsyncExitStack() as stack:
        for name in names:
            stack.push_async_callback(
                database.administer, f"DROP OWNED BY {name}; DROP ROLE {name}"
            )
        login = login_to(replace(database, user=admin, password="secret"))
        server = await stack.enter_async_context(started_server(database, login=login))
        roles: dict[int, str] = {}
        for name in (theirs, ours, theirs):
            who = replace(database, user=name, password="secret")
            connection = await who.connect()
            stack.callback(connection.terminate)
            roles[connection.get_server_pid()] = name
            endless = asyncio.create_task(connection.execute("SELECT pg_sleep(1000)"))
            stack.callback(endless.cancel)

        async def busy() -> dict[int, datetime]:
            rows = await database.administer(
                "SELECT pid, backend_start FROM pg_stat_activity"
                f" WHERE usename IN ('{theirs}', '{ours}') AND wait_event = 'PgSleep'"
            )
            return dict(rows)

        async def all_are_busy() -> bool:
            return (await busy()).keys() == roles.keys()

        await eventually(all_are_busy)
        ended = await end_busy(server, await busy())
        assert [roles[pid] for pid in ended] == [ours]
