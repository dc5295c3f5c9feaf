"""The files of a pooler: complete, private, in a directory of their own."""

import os
import stat
from pathlib import Path

import pytest

from app.node.errors import CannotStart
from app.node.files import NodeDirectory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    directory = NodeDirectory(tmp_path / "a" / "node")
    before = os.umask(0)
    try:
        directory.make()
        path = directory.write("users.txt", b"secret")
    finally:
        os.umask(before)
    assert mode(directory.path) == 0o700
    assert mode(path) == 0o600

    # One that existed before, too.
    directory.path.chmod(0o755)
    path.chmod(0o644)
    directory.make()
    directory.write("users.txt", b"another")
    assert mode(directory.path) == 0o700
    assert mode(path) == 0o600


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = NodeDirectory(tmp_path / "node")
    directory.make()
    path = directory.write("hba.conf", b"old")
    reader = path.open()
    directory.write("hba.conf", b"new")
    assert reader.read() == "old"
    assert path.read_text() == "new"
    reader.close()

    def fails(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fchown", fails)
    with pytest.raises(OSError, match="no space"):
        directory.write("hba.conf", b"half")
    assert path.read_text() == "new"
    assert list(directory.path.iterdir()) == [path]


def test_a_directory_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="too long for a Unix socket"):
        NodeDirectory(tmp_path / ("x" * 90)).make()
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="cannot be used"):
        NodeDirectory(tmp_path / "file").make()


def test_what_a_killed_process_has_half_written_does_not_stay(tmp_path: Path) -> None:
    directory = NodeDirectory(tmp_path / "node")
    directory.make()
    half, fresh = (directory.path / f"users.txt.{name}" for name in ("0123abcd", "4567cdef"))
    others = [directory.write("users.txt", b"secret"), directory.path / "pgbouncer.log"]
    for path in (half, fresh, *others):
        path.write_text("secret")
    for path in (half, *others):
        os.utime(path, (0, 0))
    directory.make()
    assert not half.exists()
    assert all(path.exists() for path in (fresh, *others))
