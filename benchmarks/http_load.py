"""Callers of an HTTP server in another process, and the processor time that they cost it.

Linux only.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Self

_DEADLINE = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server of this machine."""

    pid: int
    port: int

    async def get(self, path: str, headers: str = "") -> bytes:
        """The body of a response, which must be 200."""
        connection = await HttpConnection.connect(self.port)
        try:
            status, body = await connection.ask(get(path, headers))
        finally:
            connection.close()
        if status != b"200":
            raise RuntimeError(f"{path}: {status!r} {body[:200]!r}")
        return body

    def cpu(self) -> float:
        """Seconds of processor time that it used so far."""
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def megabytes(self, field: str = "VmRSS") -> float:
        """Resident memory without that of its children: VmRSS now, VmHWM at its most."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        found = re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE)
        if found is None:
            raise ValueError(field)
        return round(int(found[1]) / 1024, 1)


def get(path: str, headers: str = "") -> bytes:
    """A GET request; *headers* are whole lines."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode()


def post(path: str, body: str, headers: str = "") -> bytes:
    """A POST request with JSON."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n{body}"
    ).encode()


def bearer(token: str) -> str:
    """The header that carries an API key."""
    return f"Authorization: Bearer {token}\r\n"


class HttpConnection:
    """One connection that stays open, for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        """A connection to a port of this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """The status and the body of the response."""
        head, body = await self.exchange(request)
        return head[9:12], body

    async def exchange(self, request: bytes) -> tuple[bytes, bytes]:
        """The status line with the headers, and the body."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await self._reader.readexactly(int(length[1])) if length else b""
        return head, body

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@asynccontextmanager
async def server_process(
    port: int, *words: str, ready: bytes, env: Mapping[str, str] | None = None
) -> AsyncIterator[Target]:
    """Run Python with these words, for a block; it responds to *ready* with 200 once it is."""
    process = await asyncio.create_subprocess_exec(sys.executable, *words, env=env)
    try:
        await until_status(port, b"200", ready)
        yield Target(pid=process.pid, port=port)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until_status(port: int, status: bytes, request: bytes) -> None:
    """Send *request* until the response has this status."""
    async with asyncio.timeout(_DEADLINE):
        while not await _has_status(port, status, request):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def _has_status(port: int, status: bytes, request: bytes) -> bool:
    try:
        connection = await HttpConnection.connect(port)
    except OSError:
        return False
    try:
        return (await connection.ask(request))[0] == status
    finally:
        connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Responses a second, and for each second of the server's own processor time.

    The latter leaves out what other processes took of the machine.
    """

    per_second: float
    per_cpu_second: float


async def throughput(
    target: Target, requests: Sequence[bytes], *, clients: int, seconds: float
) -> Throughput:
    """So many *clients* ask again and again; each sends a share of *requests* by turns."""
    answered = 0
    connections = [await HttpConnection.connect(target.port) for _ in range(clients)]
    ends = perf_counter() + seconds

    async def ask(connection: HttpConnection, own: Iterator[bytes]) -> None:
        nonlocal answered
        while perf_counter() < ends:
            status, body = await connection.ask(next(own))
            if status != b"200":
                raise RuntimeError(f"{status!r} {body[:200]!r}")
            answered += 1

    began, cpu = perf_counter(), target.cpu()
    try:
        await asyncio.gather(
            *(
                ask(connection, cycle(requests[number % len(requests) :: clients]))
                for number, connection in enumerate(connections)
            )
        )
    finally:
        for connection in connections:
            connection.close()
    took, cpu = perf_counter() - began, target.cpu() - cpu
    return Throughput(per_second=answered / took, per_cpu_second=answered / max(cpu, 0.001))
