"""The service as a process of its own: started, looked at from outside, ended. Linux only."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg
import httpx

from app.api.auth.api_key import api_key_for, new_token
from app.api.auth.key_file import KeyList
from app.api.auth.key_scope import KeyScope
from benchmarks.backends import OF_CLIENTS, MostBackends, most_backends
from benchmarks.http_load import Target
from benchmarks.testbed import free_port

_START_DEADLINE = 180.0
_STOP_DEADLINE = 60.0
_GLANCE = 0.05


class ServiceProcess:
    """`poolkeeper serve` on a free port, with its embedded Postgres under a data directory."""

    def __init__(self, data_dir: Path, **settings: object) -> None:
        """Start nothing yet; *settings* go to the service's environment."""
        self._data_dir = data_dir
        self._port = free_port()
        self._settings = {
            "data_dir": data_dir,
            "port": self._port,
            "log_level": "WARNING",
            **settings,
        }
        self._process: Process | None = None
        self.base_url = f"http://127.0.0.1:{self._port}"

    @property
    def target(self) -> Target:
        """The started service, for callers."""
        return Target(pid=self._started.pid, port=self._port)

    @property
    def _started(self) -> Process:
        if self._process is None:
            raise RuntimeError("the service was not started")
        return self._process

    async def start(self) -> float:
        """Start and wait until it is ready; the seconds that took.

        Raises:
            RuntimeError: it ended instead.
            TimeoutError: it was not ready in time.
        """
        began = perf_counter()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", "serve"), env=_environment(self._settings)
        )
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(_START_DEADLINE):
            while not await self._is_ready(client):
                if self._process.returncode is not None:
                    raise RuntimeError(f"the service ended: {self._process.returncode}")
                await asyncio.sleep(_GLANCE)
        return perf_counter() - began

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.base_url}/readyz")).is_success
        except httpx.TransportError:
            return False

    async def terminate(self) -> tuple[float, int, list[int]]:
        """Send SIGTERM; seconds until it ended, its exit status, and processes it left behind."""
        family = descendants(self._started.pid)
        began = perf_counter()
        self._started.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_DEADLINE):
            status = await self._started.wait()
        return perf_counter() - began, status, [pid for pid in family if _is_alive(pid)]

    async def kill(self) -> None:
        """End it and its Postgres by force, if something went wrong before; safe at any time."""
        if self._process is None or self._process.returncode is not None:
            return
        family = descendants(self._process.pid)
        self._process.kill()
        await self._process.wait()
        for pid in filter(_is_alive, family):
            os.kill(pid, signal.SIGKILL)

    def postgres(self) -> dict[str, str]:
        """How to reach its Postgres as superuser."""
        port = (self._data_dir / "postgres" / "postmaster.pid").read_text(encoding="utf-8")
        password = (self._data_dir / "postgres-password").read_text(encoding="utf-8")
        return {
            "host": "127.0.0.1",
            "port": port.splitlines()[3],
            "user": "postgres",
            "password": password.strip(),
            "database": "poolkeeper",
        }

    @asynccontextmanager
    async def most_connections(self) -> AsyncIterator[MostBackends]:
        """Watch how many client connections its Postgres has besides this one, for a block."""
        settings: dict[str, Any] = {**self.postgres(), "passfile": os.devnull, "ssl": False}
        connection = await asyncpg.connect(**settings, timeout=10, command_timeout=10)
        try:
            async with most_backends(connection, OF_CLIENTS) as seen:
                yield seen
        finally:
            await connection.close(timeout=5)


def _environment(settings: dict[str, object]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POOLKEEPER_", "PG"))
    }
    return kept | {f"POOLKEEPER_{name.upper()}": str(value) for name, value in settings.items()}


def write_keys(path: Path, count: int) -> list[str]:
    """Write a file of so many API keys with every scope but a node's; the keys."""
    tokens, now = [new_token() for _ in range(count)], datetime.now(UTC)
    scopes = tuple(scope for scope in KeyScope if scope is not KeyScope.NODE)
    keys = tuple(
        api_key_for(token, name=f"bench-{number}", scopes=scopes, created_at=now)
        for number, token in enumerate(tokens)
    )
    path.touch(mode=0o600)
    path.write_text(KeyList(keys=keys).model_dump_json(), encoding="utf-8")
    return tokens


def descendants(pid: int) -> set[int]:
    """A process, its children, their children and so on."""
    parents = {
        int(entry.name): parent
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None
    }
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _parent(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[1]) if stat else None


def _is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return _stat(pid)[:1] not in ([], ["Z"])


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()
