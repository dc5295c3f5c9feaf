"""The data directory of one service: its lock, the superuser's password and Postgres' log.

The password must never reach a log, an error or a command line.
"""

import fcntl
import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from app.embedded.binaries import make_enterable
from app.embedded.errors import EmbeddedPostgresError

_LOCK = "lock"


def write_private_file(path: Path, text: str) -> None:
    """Write a file that only its owner may read: all or nothing, even if the machine crashes.

    Raises:
        OSError: it cannot be written; then nothing has changed.
    """
    half = path.with_name(f"{path.name}.half")
    half.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)  # there may be half a secret in it
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Write the directory's entries to the disk, if its file system can."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(directory)
    finally:
        os.close(directory)


def new_password() -> str:
    """Create a password: 256 random bits, in letters that need no quoting anywhere."""
    return secrets.token_hex(32)


class DataDirectory:
    """`lock`, `postgres-password`, `postgres.log` (of this run) and `postgres.log.previous`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.log_file = self.path / "postgres.log"
        self._password_file = self.path / "postgres-password"
        self._lock: int | None = None

    def lock(self) -> None:
        """Create the directory if missing, and lock it against other services until `unlock()`.

        The kernel releases the lock when the process ends, however it ends, so it never goes stale.

        Raises:
            EmbeddedPostgresError: another service holds it; the message says which.
            OSError: the lock file cannot be opened or locked.
        """
        make_enterable(self.path)
        file = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise EmbeddedPostgresError(
                f"the data directory {self.path} is in use by another poolkeeper (pid {holder})",
            ) from error
        except OSError:
            os.close(file)
            raise
        self._lock = file

    def unlock(self) -> None:
        """Let the next service in. Safe to call twice.

        The file stays: removing it would let two services lock two files of the same name,
        unless its directory goes with it.
        """
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read_password(self) -> str | None:
        """The stored password; None if there is none, or it is not one of ours."""
        try:
            password = self._password_file.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return None
        self._password_file.chmod(0o600)
        return password if re.fullmatch(r"[0-9a-f]{64}", password) else None

    def store_password(self, password: str) -> None:
        """Store it for the next start, and for a person who wants to look inside."""
        write_private_file(self._password_file, password)

    def begin_log(self) -> None:
        """Start a new log, so that it does not grow for ever; the previous one explains a crash."""
        if self.log_file.exists():
            self.log_file.replace(self.path / "postgres.log.previous")
        self.log_file.touch(mode=0o600)

    def delete(self) -> None:
        """Delete everything in it, the lock last: no other service may start in between."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != _LOCK:
                entry.unlink()
        (self.path / _LOCK).unlink()
        self.path.rmdir()
