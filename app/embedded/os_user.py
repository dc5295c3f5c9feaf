"""The operating system user that runs Postgres, and what that user can access.

Postgres refuses to run as root, so root runs it as an unprivileged user. This file starts only
short-lived programs; `postmaster` runs the server.
"""

import asyncio
import os
import pwd
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.embedded.errors import EmbeddedPostgresError

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""The environment of Postgres' programs: no PG* variable of the operator may reach them."""


@dataclass(frozen=True, slots=True)
class CompletedProgram:
    """A program that ended: its exit status, and its output on both streams."""

    status: int
    output: str


@dataclass(frozen=True, slots=True)
class OsUser:
    """The user that runs Postgres; `uid` and `gid` are None for our own user."""

    name: str
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def choose(cls, existing_cluster: Path | None) -> Self:
        """Choose our own user; for root, the owner of an existing cluster, or postgres, or nobody.

        Raises:
            EmbeddedPostgresError: there is no such user, or the cluster is another user's.
        """
        owner = None if existing_cluster is None else existing_cluster.stat().st_uid
        if os.geteuid() == 0:
            return cls._unprivileged(owner)
        if owner not in (None, os.geteuid()):
            raise EmbeddedPostgresError(
                f"the cluster {existing_cluster} belongs to the user with id {owner}; "
                "run poolkeeper as that user, or give it another data directory",
            )
        return cls(name=f"uid {os.geteuid()}")

    @classmethod
    def _unprivileged(cls, owner: int | None) -> Self:
        for key in (owner,) if owner else ("postgres", "nobody"):
            with suppress(KeyError):
                entry = pwd.getpwuid(key) if isinstance(key, int) else pwd.getpwnam(key)
                return cls(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root, and there is no user postgres or nobody to run it"
            if owner is None
            else f"the embedded cluster belongs to the user id {owner}, which has no account",
        )

    @property
    def extra_groups(self) -> list[int] | None:
        """None to keep the current groups; after a switch to another user there are none."""
        return None if self.uid is None else []

    def chown(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    async def run(
        self,
        *argv: str | Path,
        deadline_seconds: float,
        stdin: bytes = b"",
    ) -> CompletedProgram:
        """Run a program to its end; when this returns or raises, none of its processes is left.

        Raises:
            EmbeddedPostgresError: it did not end before the deadline.
            OSError: this user cannot run it.
        """
        # Uvloop cannot start a process as another user. This returns once the program runs.
        process = subprocess.Popen(  # noqa: ASYNC220 - see above
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
            user=self.uid,
            group=self.gid,
            extra_groups=self.extra_groups,
        )
        ended = asyncio.get_running_loop().run_in_executor(None, process.communicate, stdin)
        try:
            async with asyncio.timeout(deadline_seconds):
                output, _ = await asyncio.shield(ended)
        except TimeoutError as error:
            raise EmbeddedPostgresError(
                f"{Path(argv[0]).name} did not finish within {deadline_seconds:g} seconds",
            ) from error
        finally:
            if not ended.done():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.wait({ended})
        return CompletedProgram(status=process.returncode, output=output.decode(errors="replace"))

    async def can_run(self, *argv: str | Path) -> bool:
        """Run a program to see whether it succeeds."""
        try:
            finished = await self.run(*argv, deadline_seconds=10)
        except OSError:
            return False
        return finished.status == 0

    async def can_enter(self, directory: Path) -> bool:
        """Whether the user can enter a directory through all its parents."""
        return await self.can_run("/bin/sh", "-c", 'cd -- "$1"', "sh", directory)
