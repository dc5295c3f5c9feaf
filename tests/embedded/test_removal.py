"""Deleting an embedded Postgres for good, as the demo does when it ends."""

from pathlib import Path

import pytest

from app.embedded import EmbeddedPostgres, EmbeddedPostgresError
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.processes import family, is_alive, is_root, kill, service_process


def entries(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def is_empty(database: Database) -> bool:
    async with database.connected() as connection:
        return await connection.fetchval("SELECT to_regclass('kept')") is None


async def test_a_running_server_is_stopped_and_deleted(enterable_path: Path) -> None:
    postgres = EmbeddedPostgres(enterable_path / "data", durable=False)
    async with (await superuser_of(postgres)).connected() as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    members = family(postgres.pid or 0)
    await postgres.remove()
    assert not [pid for pid in members if is_alive(pid)]
    assert not entries(enterable_path)

    assert await is_empty(await superuser_of(postgres))
    await postgres.remove()


async def test_removal_is_safe_before_start_and_twice(enterable_path: Path) -> None:
    postgres = EmbeddedPostgres(enterable_path / "data", durable=False)
    await postgres.remove()
    await postgres.start()
    await postgres.remove()
    await postgres.remove()
    assert not entries(enterable_path)


async def test_what_another_service_uses_is_not_deleted(enterable_path: Path) -> None:
    async with service_process(enterable_path / "data") as holder:
        with pytest.raises(EmbeddedPostgresError, match=f"in use by .* \\(pid {holder.pid}\\)"):
            await EmbeddedPostgres(enterable_path / "data").remove()
        assert (enterable_path / "data" / "postgres" / "PG_VERSION").exists()
    await EmbeddedPostgres(enterable_path / "data").remove()  # its Postgres outlived the kill


async def test_the_server_of_a_killed_service_is_ended_and_deleted(enterable_path: Path) -> None:
    data_dir = enterable_path / "data"
    async with service_process(data_dir) as service:
        left = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        await kill(service)
    assert is_alive(left)
    await EmbeddedPostgres(data_dir).remove()
    assert not is_alive(left)
    assert not data_dir.exists()


@pytest.mark.skipif(not is_root(), reason="only root's cluster is ever elsewhere")
@pytest.mark.parametrize("is_data_dir_lost", [False, True])
async def test_a_cluster_outside_its_data_directory_is_deleted_too(
    enterable_path: Path, *, is_data_dir_lost: bool
) -> None:
    private = enterable_path / "private"
    private.mkdir(mode=0o700)
    shared_root = enterable_path / "shared"
    postgres = EmbeddedPostgres(private / "data", durable=False, shared_root=shared_root)
    await postgres.start()
    [elsewhere] = shared_root.iterdir()
    assert (elsewhere / "postgres").is_dir()
    if is_data_dir_lost:
        await postgres.stop()
        (private / "data").rename(enterable_path / "lost")
    await postgres.remove()
    assert not entries(private)
    assert not entries(shared_root)
