"""The service as a process of its own: started, looked at from outside, ended. Linux only."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import asyncpg
import httpx

_START_DEADLINE = 180.0
_STOP_DEADLINE = 60.0
_GLANCE = 0.05


class ServiceProcess:
    """`poolkeeper serve` on a free port, with its embedded Postgres under a data directory."""

    def __init__(self, data_dir: Path, **settings: object) -> None:
        """Start nothing yet; *settings* go to the service's environment."""
        self._data_dir = data_dir
        self._port = _free_port()
        self._settings = {
            "data_dir": data_dir,
            "port": self._port,
            "log_level": "WARNING",
            **settings,
        }
        self._process: Process | None = None
        self.base_url = f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The started service's process."""
        return self._started.pid

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
        family = _descendants(self.pid)
        began = perf_counter()
        self._started.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_DEADLINE):
            status = await self._started.wait()
        return perf_counter() - began, status, [pid for pid in family if _is_alive(pid)]

    async def kill(self) -> None:
        """End it and its Postgres by force, if something went wrong before; safe at any time."""
        if self._process is None or self._process.returncode is not None:
            return
        family = _descendants(self.pid)
        self._process.kill()
        await self._process.wait()
        for pid in filter(_is_alive, family):
            os.kill(pid, signal.SIGKILL)

    def megabytes(self, field: str) -> float:
        """Resident memory of the service without its Postgres: VmRSS now, VmHWM at its most."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{field}:"):
                return round(int(line.split()[1]) / 1024, 1)
        raise ValueError(field)

    @asynccontextmanager
    async def counting_connections(self) -> AsyncIterator[ConnectionCount]:
        """Look every 50 ms how many client connections its Postgres has, besides this one."""
        port = (self._data_dir / "postgres" / "postmaster.pid").read_text(encoding="utf-8")
        password = (self._data_dir / "postgres-password").read_text(encoding="utf-8")
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=int(port.splitlines()[3]),
            user="postgres",
            password=password.strip(),
            database="postgres",
            passfile=os.devnull,
            ssl=False,
            timeout=10,
            command_timeout=10,
        )
        count = ConnectionCount()
        looking = asyncio.create_task(count.look(connection), name="bench: connections")
        try:
            yield count
        finally:
            looking.cancel()
            await asyncio.wait([looking])
            await connection.close(timeout=5)


class ConnectionCount:
    """The most client connections seen at once, and how often one looked."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.most = 0
        self.looks = 0

    async def look(self, connection: asyncpg.Connection) -> None:
        """Go on until cancelled."""
        statement = await connection.prepare(
            "select count(*) from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        while True:
            self.most = max(self.most, await statement.fetchval())
            self.looks += 1
            await asyncio.sleep(_GLANCE)


def _environment(settings: dict[str, object]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POOLKEEPER_", "PG"))
    }
    return kept | {f"POOLKEEPER_{name.upper()}": str(value) for name, value in settings.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _descendants(pid: int) -> set[int]:
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
