"""PgBouncer's process: its user, and how to start it, check it and end it.

It outlives the agent, so that clients keep working while the agent restarts. The new agent takes it
over.
"""

import asyncio
import os
import pwd
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.node.errors import CannotStart

# No variable of the operator reaches it, such as libpq's.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_POLL_SECONDS = 0.02
_VERSION_SECONDS = 10.0
_is_version = re.compile(r"PgBouncer (\d+\.\d+\.\d+)").match


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user that runs PgBouncer; *uid* and *gid* are None for our own user."""

    name: str
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def choose(cls, name: str | None = None) -> Self:
        """Choose our own user; for root, which PgBouncer refuses, *name*, pgbouncer or postgres.

        Raises:
            CannotStart: there is no such user, or only root could become it.
        """
        own = f"uid {os.geteuid()}"
        with suppress(KeyError):  # containers run with ids that have no account
            own = pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() != 0:
            if name not in (None, own):
                raise CannotStart(f"Only root can run PgBouncer as {name}. This is {own}.")
            return cls(name=own)
        for candidate in (name,) if name else ("pgbouncer", "postgres", "nobody"):
            with suppress(KeyError):
                entry = pwd.getpwnam(candidate)
                if entry.pw_uid != 0:
                    return cls(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
        raise CannotStart(
            "PgBouncer refuses to run as root. Name an unprivileged user that exists"
            + (f"; {name} is not one." if name else ".")
        )


class PoolerProcess:
    """A running PgBouncer: started by this agent, or left by an earlier one."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._child = child
        self._began = None if child is not None else _beginning_of(pid)

    @classmethod
    def launch(cls, program: Path, ini: Path, *, account: Account, log: Path) -> Self:
        """Start PgBouncer with *ini*; its output starts a new *log*, which may be truncated later.

        Raises:
            CannotStart: the program cannot be run.
        """
        try:
            log.unlink(missing_ok=True)
            with log.open("ab") as output:
                # Uvloop cannot start a process as another user. This returns once the program runs.
                child = subprocess.Popen(
                    (program, ini),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=_ENVIRONMENT,
                    # Ctrl-C is for the agent only; PgBouncer continues.
                    start_new_session=True,
                    user=account.uid,
                    group=account.gid,
                    extra_groups=None if account.uid is None else [],
                )
        except OSError as error:
            raise CannotStart(f"{program} cannot be run: {error}") from error
        return cls(child.pid, child)

    def is_running(self) -> bool:
        """Whether it lives; a zombie of a hanging agent does not."""
        if self._child is not None:
            return self._child.poll() is None
        # Once it has ended, another process may have its process id.
        return self._began is not None and _beginning_of(self.pid) == self._began

    async def stop(self, *, patience: float) -> None:
        """End it: transactions get *patience* seconds, then they are cut off. Safe to call twice.

        Since 1.23 a first SIGTERM waits for all clients to leave; one after SIGINT waits for none.

        Raises:
            CannotStart: it outlived SIGKILL.
        """
        for number, seconds in (
            (signal.SIGINT, patience),
            (signal.SIGTERM, 1.0),
            (signal.SIGKILL, 5.0),
        ):
            with suppress(ProcessLookupError):
                if self.is_running():
                    os.kill(self.pid, number)
                    os.kill(self.pid, signal.SIGCONT)  # a stopped process handles no other signal
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while self.is_running():  # noqa: ASYNC110 - another process sets no event
                        await asyncio.sleep(_POLL_SECONDS)
                return
        raise CannotStart(f"PgBouncer (pid {self.pid}) did not end, even after SIGKILL.")


def _beginning_of(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None if it does not live."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # State and start time are the first and the twentieth field after the name (man 5 proc).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def find_pgbouncer(given: Path | None = None) -> Path:
    """Find the program: *given*, or the one on the path or at Debian's place.

    Raises:
        CannotStart: there is none.
    """
    if given is not None:
        return given
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if found is None:
        raise CannotStart(
            "There is no PgBouncer on the path. Install the package pgbouncer of your distribution."
        )
    return Path(found)


def version_of(program: Path) -> tuple[int, ...]:
    """Return the version of a PgBouncer, such as (1, 18, 0).

    Raises:
        CannotStart: *program* cannot be run, or is not PgBouncer.
    """
    try:
        output = subprocess.run(  # it prints a line and ends
            (program, "--version"),
            capture_output=True,
            check=False,
            env=_ENVIRONMENT,
            timeout=_VERSION_SECONDS,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotStart(f"{program} cannot be run: {error}") from error
    if (version := version_in(output)) is None:
        raise CannotStart(f"{program} is not PgBouncer: it reports no version.")
    return version


def version_in(text: str) -> tuple[int, ...] | None:
    """The version that PgBouncer reports in *text*."""
    found = _is_version(text)
    return tuple(map(int, found[1].split("."))) if found else None
