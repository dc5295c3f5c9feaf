"""kill -9 of the service: Postgres outlives it, and the next service takes over."""

import os
from pathlib import Path

import pytest

from app.embedded import EmbeddedPostgres
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.processes import (
    family,
    is_alive,
    kill,
    processes_about,
    service_process,
)
from tests.fixtures.waiting import eventually


def postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def database_of_running(data_dir: Path) -> Database:
    """Another process's server, from the files in its directory."""
    lines = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    password = (data_dir / "postgres-password").read_text().strip()
    return Database("127.0.0.1", int(lines[3]), "postgres", password, "poolkeeper")


async def test_the_next_start_ends_the_old_server_and_keeps_what_was_committed(
    enterable_path: Path,
) -> None:
    data_dir = enterable_path / "data"
    async with service_process(data_dir) as service:
        async with database_of_running(data_dir).connected() as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        old = family(postmaster_pid(data_dir))
        await kill(service)
    assert is_alive(postmaster_pid(data_dir))

    postgres = EmbeddedPostgres(data_dir)
    async with (await superuser_of(postgres)).connected() as connection:
        assert await connection.fetchval("SELECT answer FROM kept") == 42
    assert not [pid for pid in old if is_alive(pid)]
    await postgres.stop()


async def test_a_server_that_died_with_its_service_is_recovered(enterable_path: Path) -> None:
    data_dir = enterable_path / "data"
    async with service_process(data_dir) as service:
        async with database_of_running(data_dir).connected() as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await kill(service)
        os.kill(postmaster_pid(data_dir), 9)
    postgres = EmbeddedPostgres(data_dir)
    async with (await superuser_of(postgres)).connected() as connection:
        assert await connection.fetchval("SELECT answer FROM kept") == 42
    await postgres.stop()


@pytest.mark.parametrize("first_line", ["{own}", "1", "999999999", "garbage", ""])
async def test_a_stale_pid_file_stops_no_start(enterable_path: Path, first_line: str) -> None:
    """Pids are reused: the one in the file may be that of the next service itself."""
    postgres = EmbeddedPostgres(enterable_path / "data", durable=False)
    await postgres.start()
    file = enterable_path / "data" / "postgres" / "postmaster.pid"
    lines = file.read_text().splitlines()
    await postgres.stop()
    stale = "\n".join([first_line.format(own=os.getpid()), *lines[1:], ""])
    file.write_text(stale if first_line else "")
    os.chown(file, file.parent.stat().st_uid, file.parent.stat().st_gid)
    await postgres.start()
    await postgres.stop()


async def test_a_service_killed_during_initdb_leaves_no_half_made_cluster(
    enterable_path: Path,
) -> None:
    data_dir = enterable_path / "data"
    async with service_process(data_dir, until_started=False) as service:
        await eventually(lambda: list(data_dir.glob("postgres.new-*/postgres/base")))
        await kill(service)
        assert not (data_dir / "postgres").exists()
    postgres = EmbeddedPostgres(data_dir, durable=False)
    async with (await superuser_of(postgres)).connected() as connection:
        assert await connection.fetchval("SELECT 42") == 42
    await postgres.stop()
    await eventually(lambda: not processes_about(f"{data_dir}/postgres.new-"))  # the orphan initdb
    await postgres.start()
    await postgres.stop()
    assert not list(data_dir.glob("postgres.new-*"))
