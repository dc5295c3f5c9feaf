"""The files of a pooler: written completely or not at all, and readable by its user only."""

import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.node.errors import CannotStart

# The longest path of a socket, with the zero at its end (man 7 unix).
_LONGEST_SOCKET = 107
# No file takes this many seconds to write.
_HALF_SECONDS = 60.0
_is_half = re.compile(r".+\.[0-9a-f]{8}").fullmatch

Signatures = tuple[tuple[int, ...] | None, ...]
"""Signatures of files: they change when a file is replaced or written; None if there is none."""


def signatures(files: Iterable[Path]) -> Signatures:
    return tuple(map(_signature, files))


def _signature(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class NodeDirectory:
    """The directory of one node's files, and of its pooler's socket.

    It contains passwords of roles: put it on a tmpfs if there is one.
    """

    def __init__(self, path: Path, *, uid: int | None = None, gid: int | None = None) -> None:
        """Use *path*; its files belong to *uid* and *gid*, None for our own."""
        self.path = path.resolve()
        self._owner = (-1 if uid is None else uid, -1 if gid is None else gid)

    def make(self) -> None:
        """Create the directory if missing, and let only its owner in.

        Raises:
            CannotStart: it cannot be created, belongs to another user, or its path is too long.
        """
        if len(os.fsencode(self.socket(65_535))) > _LONGEST_SOCKET:
            raise CannotStart(f"{self.path}: the path is too long for a Unix socket in it.")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(self.path, *self._owner)
            self.path.chmod(0o700)
            self._remove_halves()
        except OSError as error:
            raise CannotStart(f"The directory {self.path} cannot be used: {error}") from error

    def _remove_halves(self) -> None:
        """Remove incomplete files of a process that was killed: they contain passwords."""
        latest = time.time() - _HALF_SECONDS
        for path in filter(lambda path: _is_half(path.name), self.path.iterdir()):
            with suppress(FileNotFoundError):  # it is complete by now
                if path.lstat().st_mtime < latest:
                    path.unlink()

    def closed_parent(self) -> Path | None:
        """The first directory above that the owner cannot enter, by its mode."""
        return next(filter(self._is_closed, reversed(self.path.parents)), None)

    def _is_closed(self, directory: Path) -> bool:
        status, (uid, gid) = directory.stat(), self._owner
        if uid == status.st_uid:
            return not status.st_mode & stat.S_IXUSR
        return not status.st_mode & (stat.S_IXGRP if gid == status.st_gid else stat.S_IXOTH)

    def socket(self, port: int) -> Path:
        """The path of the pooler's console socket, if clients connect to *port*."""
        return self.path / f".s.PGSQL.{port}"

    def write(self, name: str, content: bytes) -> Path:
        """Write a file; a concurrent reader sees the old one or the new one.

        It need not survive a crash of the machine: its content is no longer true then.

        Raises:
            OSError: it cannot be written; nothing has changed.
        """
        path = self.path / name
        half = self.path / f"{name}.{secrets.token_hex(4)}"
        try:
            with os.fdopen(
                os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            ) as file:
                os.fchown(file.fileno(), *self._owner)
                file.write(content)
            half.replace(path)
        except OSError:
            half.unlink(missing_ok=True)
            raise
        return path
