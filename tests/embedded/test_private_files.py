"""A file with a secret is complete or absent: on a full disk, and after a crash of the machine."""

import os
from pathlib import Path

import pytest

from app.embedded.data_directory import write_private_file
from tests.fixtures.full_disk import files_of_at_most

SECRET = "a secret of some length"


def test_a_file_is_synced_before_it_replaces_the_old_one_and_its_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "key", []
    path.write_text("before")

    def fsync(descriptor: int) -> None:
        what = Path(f"/proc/self/fd/{descriptor}").resolve()
        synced.append((what.is_dir() or what.read_text(), path.read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_private_file(path, SECRET)
    assert synced == [(f"{SECRET}\n", "before"), (True, f"{SECRET}\n")]


def test_a_full_disk_keeps_the_old_file_and_nothing_of_the_new_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "key"
    path.write_text("before")
    with files_of_at_most(10), pytest.raises(OSError, match="too large"):
        write_private_file(path, SECRET)
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == [(path, "before")]
