"""Two tenants of each strategy on one database: mallory attacks, alice has a secret."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import asyncpg

from app.catalog.catalog import Catalog
from app.cli.rls_sql import policies
from app.control.audit_outbox import AuditOutbox
from app.control.monitoring.isolation_audit import IsolationAudit
from app.control.pools.role_limits import RoleLimits
from app.domain.eviction import EvictionReason
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy, TenantSpec
from app.pools.isolation import IsolationStrategy
from app.pools.lease import Lease
from app.pools.manager import TenantPoolManager
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState
from app.wire import Login
from tests.fixtures.catalog import address_of
from tests.fixtures.pools import manager_on, provisioned
from tests.fixtures.postgres import Database

SECRET = "the recipe of alice"
SIZE = 2
SHARED, PER_TENANT, PER_DATABASE = PoolStrategy

_NOTES = "CREATE TABLE notes (tenant_id text NOT NULL, body text)"


class _Undo(Exception):
    """Rolls a lease back."""


@dataclass(slots=True)
class Arena:
    """Where mallory attacks alice; *strategy* isolates both."""

    strategy: PoolStrategy
    manager: TenantPoolManager
    database: Database
    self_check: IsolationAudit
    audits: bool = True
    """Whether the service audits and repairs between two steps of an attack."""

    @property
    def mallory(self) -> str:
        return f"mallory-{self.strategy.replace('_', '-')}"

    @property
    def alice(self) -> str:
        return f"alice-{self.strategy.replace('_', '-')}"

    @property
    def me(self) -> str:
        """Mallory's role."""
        return self.isolation.role(self.spec(self.mallory))

    @property
    def other(self) -> str:
        """A role of somebody else."""
        return "tenant_alice-per-tenant" if self.strategy is SHARED else f"tenant_{self.alice}"

    @property
    def server(self) -> Server:
        return self.manager.servers["local"]

    @property
    def isolation(self) -> IsolationStrategy:
        return self.manager.isolations[self.strategy]

    def spec(self, name: str) -> TenantSpec:
        return self.manager.tenants.state(name).tenant.spec

    def home(self, name: str) -> str:
        """The database in which a tenant works."""
        return self.isolation.database(self.server, self.spec(name))

    def login(self, name: str) -> Login:
        return self.isolation.login(self.server, self.spec(name))

    def lease(self, name: str = "", **terms: Any) -> Lease:
        return self.manager.lease(name or self.mallory, **terms)

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[asyncpg.Connection]:
        """A lease of mallory whose work is undone."""
        with suppress(_Undo):
            async with self.lease() as connection:
                yield connection
                raise _Undo

    @asynccontextmanager
    async def direct(
        self, name: str = "", *, database: str | None = None
    ) -> AsyncIterator[asyncpg.Connection]:
        """A connection outside of the pool, by somebody who knows their password."""
        login = self.login(name or self.mallory)
        connection = await self.server.connect(login.for_database(database) if database else login)
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    @asynccontextmanager
    async def admin(self, database: str = "") -> AsyncIterator[asyncpg.Connection]:
        into = replace(self.database, database=database or self.database.database)
        async with into.connected() as connection:
            yield connection

    async def run(self, template: str, database: str = "") -> None:
        """Execute as superuser, with {me}, {other}, {home} and {theirs} replaced."""
        names = {
            "me": f'"{self.me}"',
            "other": f'"{self.other}"',
            "home": f'"{self.home(self.mallory)}"',
            "theirs": f'"{self.home(self.alice)}"',
        }
        async with self.admin(database) as connection:
            await connection.execute(template.format(**names))

    async def recycled(self) -> None:
        """Replace all connections from before."""
        for name in (self.mallory, self.alice):
            pool = self.manager.find(self.spec(name).pool_id)
            if pool is not None:
                await self.manager.evict(pool, EvictionReason.FORCED, 0)

    async def audit_and_repair(self) -> None:
        """Do what the service does by itself every few seconds."""
        if self.audits:
            state = self.manager.tenants.state(self.mallory)
            await self.self_check.audit(self.server, [state])


@asynccontextmanager
async def arenas_on(database: Database) -> AsyncIterator[dict[PoolStrategy, Arena]]:
    """An arena for each strategy, all on one server."""
    configs = {
        PER_TENANT: PoolConfig.per_tenant(pool_size=SIZE),
        PER_DATABASE: PoolConfig.per_database(pool_size=SIZE),
    }
    async with manager_on(database, configs=configs) as manager:
        outbox = AuditOutbox(Catalog(address_of(database)))
        check = IsolationAudit(manager, RoleLimits(manager), outbox)
        arenas = {each: Arena(each, manager, database, check) for each in PoolStrategy}
        for arena in arenas.values():
            for name in (arena.mallory, arena.alice):
                await _furnish(arena, await provisioned(manager, name, arena.strategy))
        yield arenas


async def _furnish(arena: Arena, account: TenantState) -> None:
    """Make a table of notes for a tenant, alice's with her secret."""
    spec = account.tenant.spec
    await arena.isolation.provision(arena.server, account.tenant, adopt=False, max_size=SIZE)
    if spec.is_shared:
        async with arena.admin() as admin:
            if not await admin.fetchval("SELECT to_regclass('notes') IS NOT NULL"):
                await admin.execute(_NOTES)
                sql = policies(["public.notes"], column="tenant_id", role=arena.me)
                await admin.execute(sql)
    body = SECRET if spec.id == arena.alice else "nothing"
    async with arena.lease(spec.id) as connection:
        if not spec.is_shared:
            await connection.execute(_NOTES)
        await connection.execute("INSERT INTO notes VALUES ($1, $2)", spec.id, body)


Attack = Callable[[Arena], Awaitable[bool]]
