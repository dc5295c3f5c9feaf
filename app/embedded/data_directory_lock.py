"""The lock that keeps a second service out of a data directory. It must not touch Postgres."""

import fcntl
import os
from pathlib import Path

from app.embedded.errors import EmbeddedPostgresError

LOCK = "lock"
"""The lock file's name."""


class DataDirectoryLock:
    """Exclusive use of a data directory until `release()` or the end of this process.

    The kernel drops the lock with the process, however it ends, so a claim never goes stale.
    """

    def __init__(self, data_dir: Path) -> None:
        """Take the claim.

        Raises:
            EmbeddedPostgresError: another service holds it; the message says which.
            OSError: the lock file cannot be opened or locked.
        """
        self._file = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise EmbeddedPostgresError(
                f"the data directory {data_dir} is in use by another poolkeeper (pid {holder})",
            ) from error
        except OSError:
            os.close(self._file)
            raise

    def release(self) -> None:
        """Let the next service in. To be called once.

        The file stays: removing it would let two services lock two files of the same name,
        unless its directory goes with it.
        """
        os.close(self._file)
