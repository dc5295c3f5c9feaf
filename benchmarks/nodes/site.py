"""A service and PgBouncer nodes before a Postgres, each a process of its own. Linux only."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from app.embedded import EmbeddedAddress, EmbeddedPostgres
from benchmarks.backends import MostBackends, most_backends
from benchmarks.http_load import Target
from benchmarks.pgbouncer import installed
from benchmarks.replicas import settings_for
from benchmarks.service import ServiceProcess, descendants
from benchmarks.testbed import bench_folder, free_port

SERVER = "main"
# What a client that is refused, cut or left alone is told.
CLIENT_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
_OF_TENANTS = "starts_with(usename::text, 'tenant_')"
_USER = "web"
_DEADLINE = 180.0
_GLANCE = 0.02
# Tenants that are made at a time.
_TOGETHER = 8
_PATIENCE = 120.0


class Node:
    """`poolkeeper node` with its PgBouncer."""

    def __init__(self, name: str, directory: Path, url: str) -> None:
        self.name = name
        self.port = free_port()
        self.directory = directory / name
        self._url = url
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the agent; it is ready once the service says so."""
        with self.directory.with_suffix(".log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app", "node"),
                f"--server={self._url}",
                f"--name={self.name}",
                f"--listen=127.0.0.1:{self.port}",
                f"--directory={self.directory}",
                "--max-clients=2000",
                "--stop-pooler",
                stderr=log,
            )

    @property
    def agent(self) -> Target:
        """The agent's process."""
        if self._process is None:
            raise RuntimeError("the node was not started")
        return Target(pid=self._process.pid, port=self.port)

    @property
    def pooler(self) -> Target:
        """PgBouncer's process, which the agent has started."""
        [pid] = descendants(self.agent.pid) - {self.agent.pid}
        return Target(pid=pid, port=self.port)

    async def stop(self) -> None:
        """End both, by force if they do not."""
        if self._process is None:
            return
        family = descendants(self.agent.pid)
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._process.wait()
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Site:
    """A service that runs, and what was made in it.

    Attributes:
        passwords: of each tenant's application.
    """

    def __init__(
        self,
        service: ServiceProcess,
        http: httpx.AsyncClient,
        address: EmbeddedAddress,
        directory: Path,
        stack: AsyncExitStack,
    ) -> None:
        self.service = service
        self.http = http
        self.address = address
        self.passwords: dict[str, str] = {}
        self._directory = directory
        self._stack = stack

    async def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """What the service answers; it must succeed."""
        response = await self.http.request(method, path, json=body)
        return response.raise_for_status().json()

    async def add_tenants(self, names: Iterable[str]) -> None:
        """Tenants with roles of their own, and a credential for each."""
        left = iter(names)

        async def add() -> None:
            for name in left:
                await self.ask("PUT", f"/v1/tenants/{name}", {"strategy": "per_tenant"})
                await self.ask("POST", f"/v1/tenants/{name}/provision")
                await self.add_credential(name)

        await asyncio.gather(*(add() for _ in range(_TOGETHER)))

    async def add_credential(self, tenant: str) -> None:
        """A credential for the tenant's application."""
        made = await self.ask("POST", f"/v1/tenants/{tenant}/credentials", {"name": _USER})
        self.passwords[tenant] = made["password"]

    async def revoke(self, tenant: str) -> None:
        """Revoke that credential."""
        await self.ask("DELETE", f"/v1/tenants/{tenant}/credentials/{_USER}")

    async def add_node(self, name: str, *, limit: int | None = None) -> Node:
        """A node that is declared, and has its configuration in force."""
        await self.limit(name, limit)
        node = Node(name, self._directory, self.service.base_url)
        self._stack.push_async_callback(node.stop)
        await node.start()
        await self.until_in_force(node)
        return node

    async def limit(self, node: str, most: int | None) -> None:
        """Declare a node, with the most connections that it may have."""
        limits = {} if most is None else {SERVER: most}
        await self.ask("PUT", f"/v1/nodes/{node}", {"limits": limits})

    async def until_in_force(self, node: Node) -> None:
        """Wait until *node* has reported its latest configuration."""
        async with asyncio.timeout(_DEADLINE):
            while True:
                shown = await self.ask("GET", f"/v1/nodes/{node.name}")
                if shown["state"] == "ready" and shown["up_to_date"] and not shown["problem"]:
                    return
                await asyncio.sleep(_GLANCE)

    async def until_allotted(self, node: Node) -> None:
        """Wait until *node* may have connections: with its first configuration it may have none.

        Those that it gets, and its part of the tenants' sizes, others had before.
        """
        async with asyncio.timeout(_DEADLINE):
            while True:
                shown = await self.ask("GET", f"/v1/nodes/{node.name}")
                if shown["servers"] and all(each["allotment"] for each in shown["servers"]):
                    return await self.until_in_force(node)
                await asyncio.sleep(_GLANCE)

    async def connect(self, node: Node, tenant: str) -> asyncpg.Connection:
        """An application's connection through *node*; simple statements only.

        Raises:
            CLIENT_ERRORS: it is refused.
        """
        return await asyncpg.connect(
            host="127.0.0.1",
            port=node.port,
            user=f"{tenant}.{_USER}",
            password=self.passwords[tenant],
            database=tenant,
            statement_cache_size=0,
            passfile=os.devnull,
            ssl=False,
            timeout=_PATIENCE,
        )

    @asynccontextmanager
    async def most_backends(self) -> AsyncIterator[MostBackends]:
        """Watch how many back-ends of tenants Postgres shows, for a block."""
        connection = await asyncpg.connect(
            host=self.address.host,
            port=self.address.port,
            user=self.address.user,
            password=self.address.password,
            database=self.address.tenant_database,
            passfile=os.devnull,
            ssl=False,
        )
        try:
            async with most_backends(connection, _OF_TENANTS) as seen:
                yield seen
        finally:
            await connection.close(timeout=5)


@asynccontextmanager
async def site(*, budget: int, **settings: object) -> AsyncIterator[Site]:
    """A service on an empty Postgres, with *budget* connections for tenants, for a block."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(bench_folder())
        postgres = EmbeddedPostgres(folder / "postgres", durable=False)
        address = await postgres.start()
        stack.push_async_callback(postgres.stop)
        service = ServiceProcess(
            folder / "service",
            **settings_for(address),
            **{f"servers__{SERVER}__budget": budget, **settings},
        )
        stack.push_async_callback(service.kill)
        await service.start()
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=service.base_url, timeout=_DEADLINE, trust_env=False)
        )
        yield Site(service, http, address, folder, stack)
        await service.terminate()


def can_be_measured(name: str) -> bool:
    """Whether there are PgBouncer and Linux; says so where not."""
    if installed() is None or not Path("/proc/self/stat").exists():
        sys.stdout.write(f"{name}: not measured without PgBouncer, or without Linux.\n")
        return False
    return True
