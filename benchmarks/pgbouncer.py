"""PgBouncer in front of the embedded server, as a peer: `max_db_connections` is the budget."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

import asyncpg

from app.embedded import EmbeddedAddress
from benchmarks.closed_loop import Transaction
from benchmarks.testbed import free_port

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
max_db_connections={budget}
max_client_conn=2000
unix_socket_dir=
logfile={folder}/log
"""
_START_DEADLINE = 10.0
# Logins through it at a time; each user's first one waits for a server connection.
_CONNECTING = 20
_LOGIN_DEADLINE = 120.0


def installed() -> str | None:
    """Where the program is, None where it is not installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer:
    """A PgBouncer for a block, which lets everybody on loopback in."""

    def __init__(
        self, program: str, server: EmbeddedAddress, users: Mapping[str, str], *, budget: int
    ) -> None:
        """Run *program* before *server*, with *budget* connections to each of its databases."""
        self._program = program
        self._server = server
        self._users = users
        self._budget = budget
        self._port = free_port()
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

    @asynccontextmanager
    async def serve(
        self, count: int, _patience: float
    ) -> AsyncIterator[tuple[Transaction, list[str]]]:
        """Serve the first *count* users, each with a connection that stays open.

        A caller that waits too long is counted and goes on waiting, since it would lose its
        connection. Its wait lasts until the result is there.
        """
        limit, clients = asyncio.Semaphore(_CONNECTING), dict[str, asyncpg.Connection]()

        async def connect(user: str) -> None:
            async with limit:
                clients[user] = await asyncpg.connect(
                    host="127.0.0.1",
                    port=self._port,
                    user=user,
                    password="unused",  # noqa: S106 - it trusts loopback
                    database=self._server.tenant_database,
                    statement_cache_size=0,
                    passfile=os.devnull,
                    timeout=_LOGIN_DEADLINE,
                )

        async def transaction(user: str) -> float:
            await clients[user].execute("select 1")
            return perf_counter()

        try:
            await asyncio.gather(*(connect(user) for user in islice(self._users, count)))
            yield transaction, list(islice(self._users, count))
        finally:
            for client in clients.values():
                client.terminate()

    def _command(self) -> list[str]:
        """Write its files; the words that run it."""
        folder = Path(self._folder.name)
        users = "".join(f'"{user}" "{password}"\n' for user, password in self._users.items())
        settings = _SETTINGS.format(
            host=self._server.host,
            port=self._server.port,
            listen=self._port,
            folder=folder,
            budget=self._budget,
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
                self._process.kill()  # since 1.23 SIGTERM waits for all clients
            await self._process.wait()
        self._folder.cleanup()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True
