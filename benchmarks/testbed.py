"""What all contenders share: one embedded server, its tenants, and a manager for each measure."""

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict
from uuid import uuid4

import asyncpg

from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy, Tenant, TenantId, TenantSpec
from app.embedded import EmbeddedAddress, EmbeddedPostgres
from app.pools.isolation import PerDatabaseIsolation, PerTenantIsolation, SharedIsolation
from app.pools.isolation.role_passwords import RolePasswords
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState
from app.wire import Login
from benchmarks.backends import OF_POOLS, MostBackends, most_backends

CONNECTIONS = 10
# Of the tenants' passwords: benchmarks keep nothing secret.
SECRET = b"benchmarks keep no secret at all"


class Dsn(TypedDict):
    """How to reach the server, for asyncpg and psycopg alike."""

    host: str
    port: int
    user: str
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Testbed:
    """Where the embedded server is, and the contenders' common login."""

    address: EmbeddedAddress
    postgres: EmbeddedPostgres
    _own: list[Tenant] = field(default_factory=list)

    @property
    def dsn(self) -> Dsn:
        """Keyword arguments that asyncpg and psycopg both understand."""
        return {
            "host": self.address.host,
            "port": self.address.port,
            "user": self.address.user,
            "password": self.address.password,
        }

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection beside all pools, to look at the server with."""
        connection = await self.login(self.address.user, self.address.password)
        try:
            yield connection
        finally:
            await connection.close(timeout=2)

    @asynccontextmanager
    async def most_backends(self) -> AsyncIterator[MostBackends]:
        """Watch how many back-ends of pools Postgres shows, for a block."""
        async with self.connection() as connection, most_backends(connection, OF_POOLS) as seen:
            yield seen

    async def own_tenants(self, manager: TenantPoolManager, count: int) -> list[Tenant]:
        """So many tenants with login roles of their own, known to *manager*.

        All measures use the same ones: each is provisioned once on this server.
        """
        strategy = PoolStrategy.PER_TENANT
        for number in range(len(self._own), count):
            made = tenant(f"p{number}", strategy)
            await manager.isolations[strategy].provision(manager.servers["local"], made, adopt=True)
            self._own.append(made)
        for made in self._own[:count]:
            manager.put_tenant(made)
        return self._own[:count]

    def users(self, manager: TenantPoolManager, tenants: Sequence[Tenant]) -> dict[str, str]:
        """The login roles of these tenants, and their passwords."""
        isolation, credentials = manager.isolations[PoolStrategy.PER_TENANT], RolePasswords(SECRET)
        roles = (isolation.role(made.spec) for made in tenants)
        return {role: credentials.password("local", role) for role in roles}

    async def login(
        self, user: str, password: str, database: str | None = None
    ) -> asyncpg.Connection:
        """A connection of asyncpg's as *user*, beside all pools."""
        return await asyncpg.connect(
            host=self.address.host,
            port=self.address.port,
            user=user,
            password=password,
            database=database or self.address.tenant_database,
            passfile=os.devnull,
            # The server speaks none; asyncpg would ask, which is one more round trip.
            ssl=False,
        )

    @asynccontextmanager
    async def manager(
        self,
        *,
        budget: int = 60,
        shared_size: int = CONNECTIONS,
        own_size: int = 5,
        max_pools: int = 100,
        max_waiting: int = 1000,
        acquire_timeout: float = 5.0,
    ) -> AsyncIterator[TenantPoolManager]:
        """A manager with the default settings, but for the sizes."""
        admin = Login(
            host=self.address.host,
            port=self.address.port,
            user=self.address.user,
            password=self.address.password,
            database=self.address.tenant_database,
        )
        server = Server(
            "local",
            admin,
            max_connecting=4,
            kept_free=10,
            fixed_budget=budget,
            acquire_timeout=acquire_timeout,
        )
        credentials = RolePasswords(SECRET)
        manager = TenantPoolManager(
            {"local": server},
            {
                PoolStrategy.SHARED: PoolConfig.shared(
                    shared_size, warmup_size=shared_size, max_waiting=max_waiting
                ),
                PoolStrategy.PER_TENANT: PoolConfig.per_tenant(
                    max_pools, own_size, acquire_timeout=acquire_timeout
                ),
                PoolStrategy.PER_DATABASE: PoolConfig.per_database(),
            },
            {
                PoolStrategy.SHARED: SharedIsolation(credentials),
                PoolStrategy.PER_TENANT: PerTenantIsolation(credentials),
                PoolStrategy.PER_DATABASE: PerDatabaseIsolation(credentials),
            },
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(server.close)
            await server.start()
            stack.push_async_callback(manager.close, 1.0)
            yield manager


@contextmanager
def bench_folder() -> Iterator[Path]:
    """A folder, gone afterwards; root's Postgres runs under an account that has to get in."""
    with tempfile.TemporaryDirectory(prefix="poolkeeper-bench-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@asynccontextmanager
async def testbed() -> AsyncIterator[Testbed]:
    """A fresh embedded server, gone afterwards."""
    with bench_folder() as folder:
        postgres = EmbeddedPostgres(folder / "data")
        try:
            yield Testbed(address=await postgres.start(), postgres=postgres)
        finally:
            await postgres.stop()


def tenant(name: str, strategy: PoolStrategy) -> Tenant:
    """A tenant of the only server, as if provisioned."""
    now = datetime.now(UTC)
    return Tenant(
        spec=TenantSpec(id=TenantId(name), server="local", strategy=strategy),
        uid=uuid4(),
        generation=1,
        provisioned_at=now,
        deleting=False,
        created_at=now,
        updated_at=now,
    )


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def provisioned(manager: TenantPoolManager, name: str, strategy: PoolStrategy) -> None:
    """Make a tenant with all its objects known to *manager*."""
    made = tenant(name, strategy)
    await manager.isolations[strategy].provision(manager.servers["local"], made, adopt=True)
    manager.put_tenant(made)


async def opened(manager: TenantPoolManager, name: str) -> tuple[Pool, TenantState]:
    """The shared pool with all its connections open, as those of the peers are, and a tenant."""
    await provisioned(manager, name, PoolStrategy.SHARED)
    tenant_state = manager.tenants.state(name)
    pool = await manager.open_pool(tenant_state, 5.0)
    await pool.wait_until_warm(5.0)
    return pool, tenant_state
