"""The files of a pooler: written whole or not at all, and readable by its user alone."""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from app.node.errors import CannotStart

# Of a socket's path, with the zero at its end (man 7 unix).
_LONGEST_SOCKET = 107
# No file takes so many seconds to be written.
_HALF_SECONDS = 60.0
_is_half = re.compile(r".+\.[0-9a-f]{8}").fullmatch


class NodeDirectory:
    """The directory of one node's files, and of its pooler's socket.

    Passwords of roles are in it: put it on a tmpfs where there is one.
    """

    def __init__(self, path: Path, *, uid: int | None = None, gid: int | None = None) -> None:
        """Use *path*; what is in it belongs to *uid* and *gid*, None for our own."""
        self.path = path.resolve()
        self._owner = (-1 if uid is None else uid, -1 if gid is None else gid)

    def make(self) -> None:
        """Make the directory, if missing, and let only its owner in.

        Raises:
            CannotStart: it cannot be made, is another user's, or its path is too long.
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
        """Remove what a process left that was killed while it wrote: passwords are in it."""
        latest = time.time() - _HALF_SECONDS
        for path in filter(lambda path: _is_half(path.name), self.path.iterdir()):
            with suppress(FileNotFoundError):  # it is whole by now
                if path.lstat().st_mtime < latest:
                    path.unlink()

    def socket(self, port: int) -> Path:
        """Where the pooler's console listens, if clients connect to *port*."""
        return self.path / f".s.PGSQL.{port}"

    def write(self, name: str, content: bytes) -> Path:
        """Write a file; who reads it meanwhile sees the old one or the new one.

        It need not survive a crash of the machine: what is in it is no longer true then.

        Raises:
            OSError: it cannot be written; then nothing has changed.
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
