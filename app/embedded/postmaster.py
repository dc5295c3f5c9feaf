"""A running server process: launches it, waits for it, ends it.

It is a plain child process, not one of asyncio, so that it may outlive the event loop.
"""

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

from app.embedded.cluster import Cluster
from app.embedded.errors import EmbeddedPostgresError
from app.embedded.os_user import ENVIRONMENT

READY_SECONDS = 60.0
"""Usually a second; after a crash Postgres first replays its log."""

FAST_SECONDS = 5.0
"""For a fast shutdown: Postgres ends the sessions and writes everything to disk."""

IMMEDIATE_SECONDS = 8.0
"""For an immediate shutdown: Postgres itself kills processes that do not end in 5 seconds."""

POLL_SECONDS = 0.02
"""Between two checks of a process."""


class Postmaster:
    """The server process of a cluster: one that we launched, or one that a killed service left."""

    def __init__(self, directory: Path, pid: int, process: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self._directory = directory
        self._process = process

    @classmethod
    def launch(cls, cluster: Cluster, *, log_file: Path) -> Self:
        """Start a server on the cluster, as configured; its output is appended to `log_file`.

        Raises:
            OSError: the program cannot be run.
        """
        with log_file.open("ab") as output:
            process = subprocess.Popen(
                [
                    *(cluster.binaries.postgres, "-D", cluster.directory),
                    *("-c", f"config_file={cluster.configuration}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=ENVIRONMENT,
                # Ctrl-C is for the service, which ends Postgres last.
                start_new_session=True,
                user=cluster.os_user.uid,
                group=cluster.os_user.gid,
                extra_groups=cluster.os_user.extra_groups,
            )
        return cls(cluster.directory, process.pid, process)

    @classmethod
    def find_orphan(cls, directory: Path) -> Self | None:
        """Find the server that a killed service left running on a cluster.

        Process ids are reused, especially in containers, so a pid file with the id of another
        process is removed: Postgres would refuse to start because of it. Without /proc, Postgres
        decides.
        """
        file = directory / "postmaster.pid"
        if not Path("/proc/self/cmdline").exists():
            return None
        match _read_lines(file):
            case [pid, *_] if pid.isdecimal():
                left = cls(directory, int(pid), None)
                if left.is_running():
                    return left
        file.unlink(missing_ok=True)
        return None

    def is_running(self) -> bool:
        """Whether the process lives; a zombie does not."""
        if self._process is not None:
            return self._process.poll() is None
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False
        # Everyone may read a command line; to read more, root in a container lacks the capability.
        return b"\0-D\0%b\0" % os.fsencode(self._directory) in command

    async def wait_until_ready(self) -> bool:
        """Wait until it accepts connections; return False if it ended instead.

        Raises:
            EmbeddedPostgresError: neither happened before the deadline.
        """
        try:
            async with asyncio.timeout(READY_SECONDS):
                while self.is_running():
                    if self._says_ready():
                        return True
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise EmbeddedPostgresError(
                f"Postgres did not accept connections within {READY_SECONDS:g} seconds",
            ) from error
        return False

    def _says_ready(self) -> bool:
        match _read_lines(self._directory / "postmaster.pid"):
            case [pid, _, _, _, _, _, _, status]:
                return pid == str(self.pid) and status.strip() == "ready"
        return False

    async def stop(self) -> None:
        """End the server: fast, then immediately, then by force. Safe after it has ended.

        Raises:
            EmbeddedPostgresError: it outlived even SIGKILL, which only a hung disk can cause.
        """
        for number, seconds in (
            (signal.SIGINT, FAST_SECONDS),
            (signal.SIGQUIT, IMMEDIATE_SECONDS),
            (signal.SIGKILL, IMMEDIATE_SECONDS),
        ):
            if await self._ends(number, seconds):
                return
        raise EmbeddedPostgresError(f"Postgres (pid {self.pid}) did not end, even after SIGKILL")

    async def _ends(self, number: signal.Signals, seconds: float) -> bool:
        if not self.is_running():
            return True
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            os.kill(self.pid, signal.SIGCONT)  # a stopped process handles no other signal
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.is_running():  # noqa: ASYNC110 - another process sets no event
                    await asyncio.sleep(POLL_SECONDS)
        return not self.is_running()


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
