"""Postgres refuses to run as root: root's service runs it under an account with less power.

Other cases need no root: then everything stays inside the data directory.
"""

import os
import pwd
import shutil
from pathlib import Path

import pytest

from app.embedded import EmbeddedPostgres, EmbeddedPostgresError
from app.embedded.binaries import installed_package
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.processes import command_line, groups, is_root, owner

only_root = pytest.mark.skipif(not is_root(), reason="only root gives up privileges")


@pytest.fixture
def private_path(enterable_path: Path) -> Path:
    """A directory that only its owner can enter, such as a home directory or /root."""
    path = enterable_path / "private"
    path.mkdir(mode=0o700)
    return path


async def test_postgres_does_not_run_as_root(private_postgres: EmbeddedPostgres) -> None:
    assert private_postgres.pid is not None
    user = owner(private_postgres.pid)
    assert user != 0
    assert user == os.geteuid() or is_root()


@only_root
async def test_the_server_keeps_none_of_roots_groups(private_postgres: EmbeddedPostgres) -> None:
    assert private_postgres.pid is not None
    assert len(groups(private_postgres.pid)) == 1
    assert 0 not in groups(private_postgres.pid)


def owner_of_cluster(place: Path) -> int:
    return (place / "postgres").stat().st_uid


@only_root
async def test_a_data_directory_only_root_may_enter_has_its_cluster_elsewhere(
    private_path: Path, enterable_path: Path
) -> None:
    postgres = EmbeddedPostgres(
        private_path / "data", durable=False, shared_root=enterable_path / "shared"
    )
    async with (await superuser_of(postgres)).connected() as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await postgres.stop()
    [elsewhere] = (enterable_path / "shared").iterdir()
    note = (private_path / "data" / "where-is-postgres.txt").read_text()
    assert str(elsewhere) in note
    assert str(private_path / "data") in (elsewhere / "where-is-postgres.txt").read_text()

    os.chown(private_path, owner_of_cluster(elsewhere), -1)  # a cluster stays where it was made
    async with (await superuser_of(postgres)).connected() as connection:
        assert await connection.fetchval("SELECT answer FROM kept") == 42
    await postgres.stop()


@only_root
async def test_programs_only_root_may_reach_are_copied_once(
    private_path: Path, enterable_path: Path
) -> None:
    installed = installed_package()
    package = private_path / installed.name
    shutil.copytree(installed / "pginstall", package / "pginstall")
    for libraries in installed.parent.glob(f"{installed.name}.*libs"):
        shutil.copytree(libraries, private_path / libraries.name)
    link = enterable_path / "link"
    link.symlink_to(package)
    copies = set()
    for name in ("one", "two"):
        postgres = EmbeddedPostgres(
            enterable_path / name,
            durable=False,
            package=link,
            shared_root=enterable_path / "shared",
        )
        await postgres.start()
        assert postgres.pid is not None
        copies.add(Path(command_line(postgres.pid)[0]))
        await postgres.stop()
    [copy] = (enterable_path / "shared").iterdir()
    assert copies == {copy / package.name / "pginstall" / "bin" / "postgres"}


@only_root
async def test_a_cluster_is_served_by_the_account_that_owns_it(enterable_path: Path) -> None:
    postgres = EmbeddedPostgres(enterable_path / "data", durable=False)
    await postgres.start()
    await postgres.stop()
    nobody = pwd.getpwnam("nobody")
    cluster = enterable_path / "data" / "postgres"
    for path in (cluster, *cluster.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    await postgres.start()
    assert postgres.pid is not None
    assert owner(postgres.pid) == nobody.pw_uid
    await postgres.stop()


@only_root
async def test_a_cluster_of_an_account_that_is_gone_is_refused(enterable_path: Path) -> None:
    (enterable_path / "data" / "postgres").mkdir(parents=True)
    os.chown(enterable_path / "data" / "postgres", 54_321, 54_321)
    with pytest.raises(EmbeddedPostgresError, match="54321, which has no account"):
        await EmbeddedPostgres(enterable_path / "data").start()


@pytest.mark.skipif(is_root(), reason="root can serve anybody's cluster")
async def test_everything_of_an_ordinary_user_stays_in_the_data_directory(
    private_path: Path, enterable_path: Path
) -> None:
    postgres = EmbeddedPostgres(
        private_path / "data", durable=False, shared_root=enterable_path / "shared"
    )
    await postgres.start()
    await postgres.stop()
    assert (private_path / "data" / "postgres" / "PG_VERSION").exists()
    assert not (enterable_path / "shared").exists()
