"""The embedded server dies or hangs under a running service."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import pytest

from app.embedded import EmbeddedPostgres, EmbeddedPostgresError
from tests.fixtures.private_postgres import restarted, superuser_of
from tests.fixtures.processes import family, is_alive
from tests.fixtures.waiting import eventually


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
async def test_a_restart_keeps_port_and_data_and_cuts_connections(
    private_postgres: EmbeddedPostgres, how: signal.Signals
) -> None:
    database = await superuser_of(private_postgres)
    connection = await database.connect()
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    pid = private_postgres.pid
    await restarted(private_postgres, how)
    assert (await private_postgres.start()).port == database.port
    assert private_postgres.pid != pid
    await eventually(connection.is_closed)
    async with database.connected() as again:
        assert await again.fetchval("SELECT answer FROM kept") == 42


async def test_a_server_that_does_not_come_up_is_tried_again_and_its_directory_kept(
    private_postgres: EmbeddedPostgres,
) -> None:
    database = await superuser_of(private_postgres)
    async with database.connected() as connection:
        version = Path(await connection.fetchval("SHOW data_directory")) / "PG_VERSION"
    os.kill(private_postgres.pid or 0, signal.SIGKILL)
    await eventually(lambda: not is_alive(private_postgres.pid or 0))
    version.rename(version.with_name("HIDDEN"))
    for _ in range(2):
        with pytest.raises(EmbeddedPostgresError, match="does not start"):
            await private_postgres.restart_if_crashed()
        with pytest.raises(EmbeddedPostgresError, match="in use"):
            await EmbeddedPostgres(private_postgres._directory.path).start()
    assert private_postgres.relaunch_pause == 4.0  # seconds, from 1
    version.with_name("HIDDEN").rename(version)
    assert await private_postgres.restart_if_crashed()
    assert private_postgres.relaunch_pause == 1.0
    assert not await private_postgres.restart_if_crashed()
    async with database.connected() as connection:
        assert await connection.fetchval("SELECT 42") == 42


async def test_a_cancelled_relaunch_is_gone_on_with(private_postgres: EmbeddedPostgres) -> None:
    database = await superuser_of(private_postgres)
    killed = private_postgres.pid or 0
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: not is_alive(killed))
    relaunch = asyncio.create_task(private_postgres.restart_if_crashed(), name="relaunch")
    await eventually(lambda: private_postgres.pid != killed)
    relaunch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await relaunch

    async def answers() -> bool:
        await private_postgres.restart_if_crashed()
        try:
            async with database.connected() as connection:
                return bool(await connection.fetchval("SELECT true"))
        except (OSError, asyncpg.PostgresError):
            return False

    await eventually(answers)


async def test_a_killed_server_does_not_hinder_the_stop(private_postgres: EmbeddedPostgres) -> None:
    members = family(private_postgres.pid or 0)
    os.kill(private_postgres.pid or 0, signal.SIGKILL)
    await private_postgres.stop()
    await eventually(lambda: not [pid for pid in members if is_alive(pid)])


async def test_a_frozen_server_can_be_stopped(private_postgres: EmbeddedPostgres) -> None:
    members = family(private_postgres.pid or 0)
    os.kill(private_postgres.pid or 0, signal.SIGSTOP)
    await private_postgres.stop()
    assert not [pid for pid in members if is_alive(pid)]
