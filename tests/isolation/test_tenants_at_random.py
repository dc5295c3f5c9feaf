"""Fifty tenants of all strategies read and write at random, many cut off: no foreign row."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

from app.cli.rls_sql import policies
from app.domain.errors import PoolkeeperError
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from tests.fixtures.pools import finished, manager_on, provisioned
from tests.fixtures.postgres import Database

TENANTS = 50
SECONDS = 3.0
SHARED, PER_TENANT, PER_DATABASE = PoolStrategy
# Making a database takes time.
STRATEGIES = (SHARED, PER_TENANT, SHARED, PER_TENANT, PER_DATABASE)
NOTES = "CREATE TABLE notes (tenant_id text NOT NULL, body text)"


async def test_no_tenant_ever_sees_a_row_of_another(database: Database, scrub_roles: None) -> None:
    configs = {PoolStrategy.SHARED: PoolConfig.shared(4)}
    # Fewer connections than tenants, so that they pass from pool to pool.
    async with manager_on(database, configs=configs, budget=20) as manager:
        names = [f"t{number}" for number in range(TENANTS)]
        for number, name in enumerate(names):
            await provisioned(manager, name, STRATEGIES[number % len(STRATEGIES)])
        async with database.connected() as admin:
            await admin.execute(NOTES)
            sql = policies(["public.notes"], column="tenant_id", role="poolkeeper_shared")
            await admin.execute(sql)
        for name in names:
            async with manager.lease(name, timeout=20) as connection:
                if not manager.tenants.state(name).tenant.spec.is_shared:
                    await connection.execute(NOTES)
        tally = Tally()
        clients = [
            asyncio.create_task(_client(manager, name, random.Random(seed), tally), name=name)  # noqa: S311
            for seed, name in enumerate(names * 2)
        ]
        assert await finished(clients) == [None] * len(clients)
        assert tally.foreign == 0
        for name in names:
            async with manager.lease(name, timeout=20) as connection:
                assert await _foreign(connection, name) == 0


@dataclass(slots=True)
class Tally:
    """What all clients together did, how much of it was cut off, and others' rows."""

    done: int = 0
    cut: int = 0
    foreign: int = 0

    @property
    def is_enough(self) -> bool:
        return self.done > TENANTS and self.cut > 0


async def _client(manager: TenantPoolManager, name: str, dice: random.Random, tally: Tally) -> None:
    """Work for a while, on a slow machine until enough is done."""
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS
    while loop.time() < end or not tally.is_enough:
        work = asyncio.create_task(_read_or_write(manager, name, dice))
        if dice.random() < 0.3:
            await asyncio.sleep(dice.uniform(0, 0.02))
            tally.cut += work.cancel()
        try:
            tally.foreign += await work
            tally.done += 1
        except PoolkeeperError:  # no connection in time
            continue
        except asyncio.CancelledError:
            continue


async def _read_or_write(manager: TenantPoolManager, name: str, dice: random.Random) -> int:
    async with manager.lease(name, timeout=2) as connection:
        what = dice.random()
        if what < 0.4:
            await connection.execute("INSERT INTO notes VALUES ($1, $2)", name, name)
        elif what < 0.5:
            await connection.execute("UPDATE notes SET body = tenant_id")
        elif what < 0.6:
            with suppress(asyncpg.PostgresError):
                async with connection.transaction():
                    await connection.execute("SELECT 1 / 0")
        return await _foreign(connection, name)


async def _foreign(connection: asyncpg.Connection, name: str) -> int:
    """Rows that are not *name*'s, by either column."""
    query = "SELECT count(*) FROM notes WHERE tenant_id <> $1 OR body <> $1"
    return int(await connection.fetchval(query, name))
