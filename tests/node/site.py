"""A place for a node in front of the run's Postgres, and applications that connect to it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import asyncpg
import psycopg

from app.domain.nodes.configuration import NodeConfiguration, NodeEntry
from app.node.agent import Agent
from app.node.engine import Engine
from app.node.pgbouncer import PgBouncer
from app.node.process import Account
from app.node.rendering import PoolerSettings
from tests.fixtures.application import Application
from tests.fixtures.nodes import BACKENDS
from tests.fixtures.pgbouncer import installed_pgbouncer
from tests.fixtures.ports import free_port
from tests.fixtures.postgres import Database
from tests.fixtures.sessions import counted_sessions
from tests.fixtures.waiting import eventually
from tests.node.configurations import configuration, entry, password_of

EngineT = TypeVar("EngineT", bound=Engine)

LOOK_SECONDS = 0.05


@dataclass(slots=True, kw_only=True)
class EngineSite(ABC, Generic[EngineT]):
    """A database with tenants' roles, and a directory for a node in front of it.

    There is one class for each engine, which makes that engine.
    """

    database: Database
    directory: Path
    port: int = field(default_factory=free_port)

    @abstractmethod
    def engine(self) -> EngineT:
        """An engine for this directory and port: the first one, or one that takes over."""

    @asynccontextmanager
    async def started(self, node: NodeConfiguration) -> AsyncIterator[EngineT]:
        """The pooler for a block, with every entry closed."""
        engine = self.engine()
        await engine.start(node)
        try:
            yield engine
        finally:
            await engine.stop(patience=0.0)

    @asynccontextmanager
    async def run(self, node: NodeConfiguration) -> AsyncIterator[Agent]:
        """An agent that looks all the time, for a block."""
        engine = self.engine()
        agent = Agent(engine, node)
        await agent.start()
        looking = asyncio.create_task(look(agent), name="agent")
        try:
            yield agent
        finally:
            looking.cancel()
            await asyncio.wait({looking})
            await engine.stop(patience=0.0)
        assert looking.cancelled(), looking.exception()

    def entry(self, name: str, *, size: int = 2, users: Iterable[str] = ("web",)) -> NodeEntry:
        """A tenant whose role `tenants` made; its applications are `name.user`."""
        return entry(
            name,
            size=size,
            database=self.database,
            password=role_password(name),
            logins=tuple(f"{name}.{user}" for user in users),
        )

    def configuration(self, *entries: NodeEntry, **knobs: int) -> NodeConfiguration:
        return configuration(*entries, database=self.database, **knobs)

    async def make_roles(self, *tenants: str) -> None:
        """Make tenants' roles, as provisioning does."""
        async with self.database.connected() as connection:
            await connection.execute("SET scram_iterations = 1")
            for name in tenants:
                role, password = f'"tenant_{name}"', role_password(name).replace("'", "''")
                await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
                await connection.execute(
                    f"GRANT CONNECT ON DATABASE {self.database.database} TO {role}"
                )

    @asynccontextmanager
    async def client(
        self, tenant: str, *, user: str | None = None, password: str | None = None
    ) -> AsyncIterator[psycopg.AsyncConnection]:
        """An application that connects to a tenant's entry; by default as that tenant's user."""
        user = user or f"{tenant}.web"
        connection = await Application.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=tenant,
            user=user,
            password=password or password_of(user),
            passfile="/dev/null",
            sslmode="disable",
            connect_timeout=180,
            autocommit=True,
            prepare_threshold=None,
        )
        try:
            yield connection
        finally:
            await connection.close()

    async def role_of(
        self, tenant: str, *, user: str | None = None, password: str | None = None
    ) -> str:
        """The role of an application's connection to Postgres."""
        async with self.client(tenant, user=user, password=password) as connection:
            return str((await (await connection.execute("SELECT session_user")).fetchall())[0][0])

    async def enter_without_password(self, tenant: str, user: str) -> None:
        """Log in with an empty password, which libpq does not do."""
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=self.port,
            database=tenant,
            user=user,
            password="",
            ssl=False,
            timeout=180,
        )
        connection.terminate()

    async def backends(self) -> int:
        """Sessions of tenants on Postgres."""
        async with self.database.connected() as connection:
            return int(await connection.fetchval(BACKENDS))

    async def has_backends(self, count: int) -> bool:
        return await self.backends() == count


@dataclass(slots=True, kw_only=True)
class Site(EngineSite[PgBouncer]):
    """A place for PgBouncer."""

    program: Path

    def engine(self, **knobs: object) -> PgBouncer:
        # On a busy machine turns are long.
        settings = PoolerSettings(port=self.port, **({"max_wait": 180} | knobs))  # type: ignore[arg-type]
        return PgBouncer(self.program, self.directory, settings=settings, account=Account.choose())

    @classmethod
    def beside(cls, database: Database, directory: Path) -> Self:
        """A site for the PgBouncer that is installed."""
        return cls(database=database, directory=directory, program=installed_pgbouncer())


def pid_of(engine: PgBouncer) -> int:
    """The ID of the running process."""
    assert engine.process is not None
    return engine.process.pid


def reloads(site: Site) -> int:
    """How often PgBouncer was told to read its files again."""
    return (site.directory / "pgbouncer.log").read_text().count("RELOAD command issued")


def role_password(name: str) -> str:
    """The password of a tenant's role, which is hard to quote."""
    return f"it\"s '{name}\\ ; ="


async def waits(engine: Engine, entry: str) -> bool:
    """Whether clients of an entry wait."""
    measures = await engine.measure()
    return entry in measures and measures[entry].waiting > 0


async def look(agent: Agent) -> None:
    while True:
        await agent.look()
        await asyncio.sleep(LOOK_SECONDS)


@dataclass(slots=True)
class Load:
    """Transactions that succeeded so far, by tenant."""

    served: dict[str, int] = field(default_factory=dict)

    async def goes_on(self, tenant: str, *, by: int = 1) -> None:
        """Wait until so many more transactions of a tenant have succeeded."""
        before = self.served[tenant]
        await eventually(lambda: self.served[tenant] >= before + by)

    async def work(self, site: EngineSite[Any], tenant: str) -> None:
        async with site.client(tenant) as connection:
            while True:
                await connection.execute("SELECT pg_sleep(0.005)")
                self.served[tenant] = self.served.get(tenant, 0) + 1


@asynccontextmanager
async def busy(
    site: EngineSite[Any], tenants: Iterable[str], *, clients: int = 3
) -> AsyncIterator[Load]:
    """Applications of each tenant that always have work, for a block; none may see an error."""
    load = Load()
    async with working(load.work(site, tenant) for tenant in tenants for _ in range(clients)):
        yield load


@asynccontextmanager
async def working(applications: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Applications that work without end, for a block; none may see an error."""
    tasks = [asyncio.create_task(each, name="an application") for each in applications]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def never_more_than(site: EngineSite[Any], most: int) -> AsyncIterator[None]:
    """Watch the tenants' sessions in `pg_stat_activity` about every 10 ms, for a block.

    If a client hangs up inside a statement, PgBouncer serves another before Postgres has ended the
    first: so `busy` begins outside of the block, and ends there.
    """
    seen: list[int] = []

    async def watch() -> None:
        async with site.database.connected() as connection:
            while True:
                seen.append(len(await counted_sessions(connection, most)))
                await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch(), name="watch pg_stat_activity")
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    assert seen
    assert max(seen) <= most, max(seen)
