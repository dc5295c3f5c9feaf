"""The ground all contenders stand on: one embedded server, one manager with its tenants."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict
from uuid import uuid4

import asyncpg

from app.domain.desired_state import Tenant
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy, TenantId, TenantSpec
from app.embedded import EmbeddedAddress, EmbeddedPostgres
from app.pools.driver import Login
from app.pools.isolation import PerDatabaseIsolation, PerTenantIsolation, SharedIsolation
from app.pools.isolation.credentials import Credentials
from app.pools.manager import TenantPoolManager
from app.pools.server import Server

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
        connection = await asyncpg.connect(
            **self.dsn, database=self.address.tenant_database, passfile=os.devnull
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=2)

    @asynccontextmanager
    async def manager(
        self,
        *,
        budget: int = 60,
        shared_size: int = CONNECTIONS,
        own_size: int = 5,
        max_pools: int = 100,
        max_waiting: int = 1000,
    ) -> AsyncIterator[TenantPoolManager]:
        """A manager with the default settings, but for the sizes."""
        admin = Login(
            host=self.address.host,
            port=self.address.port,
            user=self.address.user,
            password=self.address.password,
            database=self.address.tenant_database,
        )
        server = Server("local", admin, max_connecting=4, kept_free=10, fixed_budget=budget)
        credentials = Credentials(SECRET)
        manager = TenantPoolManager(
            {"local": server},
            {
                PoolStrategy.SHARED: replace(
                    PoolConfig.shared(shared_size), max_waiting=max_waiting
                ),
                PoolStrategy.PER_TENANT: PoolConfig.per_tenant(max_pools, own_size),
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


@asynccontextmanager
async def testbed() -> AsyncIterator[Testbed]:
    """A fresh embedded server, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="poolkeeper-bench-") as folder:
        Path(folder).chmod(0o755)  # noqa: ASYNC240 - before anything else runs
        postgres = EmbeddedPostgres(Path(folder) / "data")
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


async def provisioned(manager: TenantPoolManager, name: str, strategy: PoolStrategy) -> None:
    """Make a tenant with all its objects known to *manager*."""
    made = tenant(name, strategy)
    await manager.isolations[strategy].provision(manager.servers["local"], made, adopt=True)
    manager.put_tenant(made)
