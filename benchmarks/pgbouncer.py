"""PgBouncer in front of the embedded server, as an anchor: `max_db_connections` is the budget."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from app.embedded import EmbeddedAddress

_SETTINGS = """\
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr=127.0.0.1
listen_port={listen}
auth_type=trust
auth_file={folder}/users.txt
pool_mode=transaction
default_pool_size=2
max_db_connections={most}
max_client_conn=2000
unix_socket_dir=
logfile={folder}/log
"""
_START_DEADLINE = 10.0


def installed() -> str | None:
    """Where the program is, None where it is not installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer:
    """A PgBouncer for a block, which lets everybody on loopback in."""

    host = "127.0.0.1"

    def __init__(
        self, program: str, server: EmbeddedAddress, users: Mapping[str, str], *, most: int
    ) -> None:
        """Run *program* before *server*, with *most* connections to each of its databases."""
        self.port = _free_port()
        self._program = program
        self._server = server
        self._users = users
        self._most = most
        self._folder = tempfile.TemporaryDirectory(prefix="poolkeeper-bouncer-")
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start it, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command(), stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(_START_DEADLINE):
            while not await self._listens():  # noqa: ASYNC110 - it tells nobody that it does
                await asyncio.sleep(0.05)
        return self

    def _command(self) -> list[str]:
        """Write its files; the words that run it."""
        folder = Path(self._folder.name)
        users = "".join(f'"{user}" "{password}"\n' for user, password in self._users.items())
        settings = _SETTINGS.format(
            host=self._server.host,
            port=self._server.port,
            listen=self.port,
            folder=folder,
            most=self._most,
        )
        for name, text in (("users.txt", users), ("pgbouncer.ini", settings)):
            (folder / name).write_text(text)
        words = [self._program, "-q"]
        if os.geteuid() == 0:
            # It refuses to run as root.
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "nobody")
            words += ["-u", "nobody"]
        return [*words, str(folder / "pgbouncer.ini")]

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it, and remove what it left."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()
        self._folder.cleanup()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        writer.close()
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
