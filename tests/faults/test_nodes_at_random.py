"""One fault after another around two nodes: within the budget, and all applications go on.

`make chaos` injects many in random order and prints what it sees.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.embedded import EmbeddedPostgres
from tests.fixtures.chaos import FAULTS, chance, inject
from tests.fixtures.nodes import RunningNode, running_node
from tests.fixtures.pools import COUNT_BACKENDS
from tests.fixtures.ports import free_port
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import restarted, superuser_of
from tests.fixtures.processes import kill, paused
from tests.fixtures.served import NO_ANSWER, Served, served
from tests.fixtures.sessions import counted_sessions
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import AWAY

BUDGET = 8
# Provisioning and a rotation log in as the tenant once, in place of an admin connection.
MOST = BUDGET + 1
TENANTS = ("acme", "bravo", "coral")
NODES = ("east", "west")
HERE = "here"
_CHANGES = [
    [("PUT", "pool")],
    [("DELETE", "pool")],
    [("POST", "pool/recycle")],
    [("POST", "rotate-credentials")],
    [("POST", "provision")],
    [("POST", "pool/pause"), ("POST", "pool/resume")],
]
STATEMENT = "SELECT pg_sleep(0.01)"
# In seconds; the machine must not be at its limit.
_PAUSE = 0.01
_GLANCE = 0.1

pytestmark = pytest.mark.usefixtures("scrub_roles")


@dataclass(slots=True)
class Site:
    """A service and its nodes in front of a Postgres, and what happened to their users.

    Attributes:
        answered: statements, by place and tenant.
        responses: of the service, by status; 0 for none.
        most: the most connections that Postgres has shown at once; *too_many*: which they were.
    """

    directory: Path
    postgres: EmbeddedPostgres
    database: Database
    catalog: Database
    port: int = field(default_factory=free_port)
    service: Served = field(init=False)
    nodes: dict[str, RunningNode] = field(default_factory=dict)
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    responses: Counter[int] = field(default_factory=Counter)
    most: int = 0
    too_many: list[str] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __str__(self) -> str:
        return (
            f"{self.most} back-ends at most, {sum(self.answered.values())} statements, responses"
            f" {dict(sorted(self.responses.items()))}"
        )

    async def serve(self) -> None:
        """Start the service, where it was before."""
        self.service = await self._stack.enter_async_context(
            served(
                self.directory,
                port=self.port,
                tenants_in=self.database,
                catalog_in=self.catalog,
                servers__local__budget=BUDGET,
                rate_limit=0,
            )
        )
        for node in self.nodes.values():
            node.services = [self.service]

    async def kill_service(self) -> None:
        await kill(self.service.process)
        await self.leave()

    async def leave(self) -> None:
        await self._stack.aclose()

    async def call(self, tenant: str) -> None:
        """Borrow connections of the service again and again, without end."""
        while True:
            if await self._ask("POST", f"/v1/tenants/{tenant}/query", {"sql": STATEMENT}) == 200:
                self.answered[HERE, tenant] += 1
            await asyncio.sleep(_PAUSE)

    async def work(self, place: str, tenant: str) -> None:
        """Be a node's application that connects again whenever it is disconnected, without end."""
        while True:
            try:
                async with self.nodes[place].application(tenant) as connection:
                    while True:
                        await connection.execute(STATEMENT)
                        self.answered[place, tenant] += 1
                        await asyncio.sleep(_PAUSE)
            except psycopg.Error:
                await asyncio.sleep(0.1)

    async def operate(self) -> None:
        """Change pools and their settings, without end."""
        chance = random.Random(1)  # noqa: S311 - which change is next
        while True:
            tenant = chance.choice(TENANTS)
            for method, path in chance.choice(_CHANGES):
                body = {"max_size": chance.randint(3, 6)} if method == "PUT" else None
                request = partial(self._is_done, method, f"/v1/tenants/{tenant}/{path}", body)
                await eventually(request, every=_GLANCE)
            await asyncio.sleep(chance.uniform(0, 0.5))

    async def _is_done(self, method: str, path: str, body: dict[str, Any] | None) -> bool:
        """Whether the service has done it, or says that it cannot."""
        return 0 < await self._ask(method, path, body) < 500

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> int:
        status = 0
        try:
            response = await self.service.client.request(method, path, json=body)
        except (*NO_ANSWER, RuntimeError):  # its client is closed with it
            pass
        else:
            status = response.status_code
            assert status != 500, (path, response.text)
        self.responses[status] += 1
        return status

    async def watch(self) -> None:
        """Count the connections, without end."""
        while True:
            try:
                async with self.database.connected() as connection:
                    while True:
                        found = await counted_sessions(connection, MOST)
                        if len(found) > max(MOST, self.most):
                            self.too_many = [str(dict(row)) for row in found]
                        self.most = max(self.most, len(found))
                        await asyncio.sleep(_PAUSE)
            except AWAY:
                await asyncio.sleep(_PAUSE)

    async def recover(self) -> None:
        """Wait until every tenant is served everywhere; there were never too many connections."""
        self.answered.clear()
        everything = {(place, each) for place in (HERE, *NODES) for each in TENANTS}
        await eventually(lambda: set(self.answered) == everything, every=_GLANCE)
        for node in self.nodes.values():
            await eventually(node.is_ready, every=_GLANCE)
        assert not self.too_many, "\n".join(self.too_many)

    async def leaves_nothing(self) -> bool:
        """Whether nobody borrows, and Postgres has the connections that the pools know."""
        client = self.service.client
        server = (await client.get("/v1/servers/local")).raise_for_status().json()
        leases = (await client.get("/v1/leases")).raise_for_status().json()
        metrics = (await client.get("/metrics")).raise_for_status().text
        async with self.database.connected() as connection:
            backends = await connection.fetchval(COUNT_BACKENDS)
        unexplained = [
            line for line in metrics.splitlines() if line.startswith("poolkeeper_unexplained_back")
        ]
        return (
            backends == server["budget"]["used"]
            and not leases["items"]
            and all(line.endswith((" 0", " 0.0")) for line in unexplained)
        )


async def kill_an_agent(site: Site) -> None:
    """Kill it; its supervisor starts it again."""
    node = chance.choice(list(site.nodes.values()))
    await node.kill_agent()
    await _a_while()
    await node.start()


async def kill_a_pooler(site: Site) -> None:
    """Kill it; its agent starts it again."""
    for pid in chance.choice(list(site.nodes.values())).poolers:
        os.kill(pid, signal.SIGKILL)


async def kill_a_whole_node(site: Site) -> None:
    node = chance.choice(list(site.nodes.values()))
    await node.kill_agent()
    for pid in node.poolers:
        os.kill(pid, signal.SIGKILL)
    await _a_while()
    await node.start()


async def pause_an_agent(site: Site) -> None:
    agent = chance.choice(list(site.nodes.values())).agent
    assert agent is not None
    with paused(agent.pid):
        await _a_while()


async def pause_a_pooler(site: Site) -> None:
    for pid in chance.choice(list(site.nodes.values())).poolers:
        with paused(pid):
            await _a_while()


async def pause_the_service(site: Site) -> None:
    with paused(site.service.process.pid):
        await _a_while()


async def kill_the_service(site: Site) -> None:
    """Kill it; its supervisor starts it again."""
    await site.kill_service()
    await _a_while()
    await site.serve()


async def restart_postgres(site: Site) -> None:
    await restarted(site.postgres)


async def restart_postgres_immediately(site: Site) -> None:
    await restarted(site.postgres, signal.SIGQUIT)


async def kill_postgres(site: Site) -> None:
    await restarted(site.postgres, signal.SIGKILL)


async def pause_postgres(site: Site) -> None:
    assert site.postgres.pid is not None
    with paused(site.postgres.pid):
        await _a_while()


async def _a_while() -> None:
    await asyncio.sleep(chance.choice([0.3, 3.0, 12.0]) * chance.random() if FAULTS else 0.0)


Fault = Callable[[Site], Awaitable[None]]

ALL: list[Fault] = [
    kill_an_agent,
    kill_a_pooler,
    kill_a_whole_node,
    pause_an_agent,
    pause_a_pooler,
    pause_the_service,
    kill_the_service,
    restart_postgres,
    restart_postgres_immediately,
    kill_postgres,
    pause_postgres,
]


@asynccontextmanager
async def site_of(
    postgres: EmbeddedPostgres, catalog: Database, directory: Path
) -> AsyncIterator[Site]:
    database = await superuser_of(postgres)
    async with AsyncExitStack() as stack:
        site = Site(directory, postgres, database, catalog)
        await site.serve()
        stack.push_async_callback(site.leave)
        for name in NODES:
            (directory / name).mkdir()
            site.nodes[name] = await stack.enter_async_context(
                running_node(directory / name, site.service, name=name)
            )
        for tenant in TENANTS:
            await site.nodes[NODES[0]].tenant(tenant)
        for node in site.nodes.values():
            node.passwords = site.nodes[NODES[0]].passwords
        users = [
            site.operate(),
            *(site.call(each) for each in TENANTS for _ in range(2)),
            *(site.work(place, each) for place in NODES for each in TENANTS for _ in range(2)),
        ]
        tasks = [asyncio.create_task(each) for each in users]
        tasks.append(asyncio.create_task(site.watch()))
        try:
            await site.recover()
            yield site
            for task in tasks[:-1]:
                task.cancel()
            await asyncio.wait(tasks[:-1])
            await eventually(site.leaves_nothing, every=_GLANCE)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert [task for task in tasks if not task.cancelled()] == []


@pytest.mark.long(60)
async def test_all_go_on_at_nodes_whatever_fails_around_them(
    private_postgres: EmbeddedPostgres, catalog_database: Database, enterable_path: Path
) -> None:
    async with site_of(private_postgres, catalog_database, enterable_path) as site:
        await inject(site, each_once=ALL, at_random=ALL, recover=site.recover)
        await site.recover()
    assert tracebacks_in(enterable_path) == []


def tracebacks_in(directory: Path) -> list[Path]:
    """The logs with a traceback."""
    return [log for log in directory.glob("**/*.log") if "Traceback" in log.read_text()]
