"""The account of the operating system that Postgres runs under, and what it can reach.

Postgres refuses to run as root, so root hands its processes to an unprivileged account.
This file starts short-lived programs only; the server itself belongs to postmaster.
"""

import asyncio
import os
import pwd
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.embedded.errors import EmbeddedPostgresError

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""All that Postgres' programs see: no PG* variable of the operator may reach them."""


@dataclass(frozen=True, slots=True)
class CompletedProgram:
    """A program that ended: its exit status, and what it said on both outputs."""

    status: int
    output: str


@dataclass(frozen=True, slots=True)
class OsUser:
    """Who runs Postgres. `user` and `group` are None where that is simply whoever we are."""

    name: str
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def choose(cls, existing_cluster: Path | None) -> Self:
        """Whoever we are; under root the owner of an existing cluster, else postgres or nobody.

        Raises:
            EmbeddedPostgresError: no such account, or the cluster is somebody else's.
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
        """None to keep ours; an account that we switch to has none."""
        return None if self.uid is None else []

    def chown(self, path: Path) -> None:
        """Make this account the owner of a file or directory that we made."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    async def run(
        self,
        *argv: str | Path,
        deadline_seconds: float,
        stdin: bytes = b"",
    ) -> CompletedProgram:
        """Run a program to its end; nothing of it is left when this returns or raises.

        Raises:
            EmbeddedPostgresError: it did not end before the deadline.
            OSError: it cannot be run by this account.
        """
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
            user=self.uid,
            group=self.gid,
            extra_groups=self.extra_groups,
        )
        try:
            async with asyncio.timeout(deadline_seconds):
                output, _ = await process.communicate(stdin)
        except TimeoutError as error:
            raise EmbeddedPostgresError(
                f"{Path(argv[0]).name} did not finish within {deadline_seconds:g} seconds",
            ) from error
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return CompletedProgram(
            status=process.returncode or 0, output=output.decode(errors="replace")
        )

    async def can_run(self, *argv: str | Path) -> bool:
        """Whether a program runs and succeeds, found out by running it."""
        try:
            finished = await self.run(*argv, deadline_seconds=10)
        except OSError:
            return False
        return finished.status == 0

    async def can_enter(self, directory: Path) -> bool:
        """Whether the account gets into a directory through all of its parents."""
        return await self.can_run("/bin/sh", "-c", 'cd -- "$1"', "sh", directory)
