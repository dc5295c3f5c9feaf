"""Leases held too long: reported with who, where and how long, and again when returned."""

import asyncio
from time import monotonic

import structlog

from app.domain.pool import PoolConfig, PoolSize
from app.domain.tenant import PoolStrategy
from app.pools.borrower import Borrower
from app.pools.leak_detection import leak_suspects
from tests.fixtures.pools import manager_on, pool_of, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

_IMPATIENT = {PoolStrategy.PER_TENANT: PoolConfig.per_tenant(leak_threshold=60.0)}


async def test_a_lease_held_too_long_is_reported_once_with_its_borrower(
    database: Database, scrub_roles: None
) -> None:
    async with manager_on(database, configs=_IMPATIENT) as manager:
        await provisioned(manager, "acme")
        task = asyncio.current_task()
        assert task is not None
        task.set_name("the forgetful one")
        with structlog.testing.capture_logs() as told:
            async with manager.lease("acme") as connection:
                pool = pool_of(manager, "acme")
                assert leak_suspects(pool, monotonic()) == []
                later = monotonic() + 61
                [suspect] = leak_suspects(pool, later)
                assert leak_suspects(pool, later) == [suspect]
                assert suspect.pid == connection.get_server_pid()
        assert (suspect.tenant, suspect.task) == ("acme", "the forgetful one")
        assert __file__ in suspect.taken_at
        assert suspect.age_seconds > 60
        assert [event["event"] for event in told] == [
            "suspected leak",
            "suspected leak returned",
        ]


async def test_a_lease_that_ends_in_time_is_no_suspect(
    database: Database, scrub_roles: None
) -> None:
    async with manager_on(database, configs=_IMPATIENT) as manager:
        await provisioned(manager, "acme")
        async with manager.lease("acme"):
            pass
        pool = pool_of(manager, "acme")
        assert leak_suspects(pool, monotonic() + 3600) == []


async def test_a_connection_knows_its_borrower_before_the_lease_has_begun(
    database: Database, scrub_roles: None
) -> None:
    async with manager_on(database) as manager:
        await provisioned(manager, "acme")
        async with manager.lease("acme"):
            pass
        pool, tenant = manager.find("acme"), manager.tenants.state("acme")
        assert pool is not None
        pool.resize(PoolSize(max_size=1))
        borrower = Borrower("select 1")
        at_once = await pool.acquire(tenant, 60, borrower=borrower)
        assert at_once.borrower is borrower
        waiting = asyncio.create_task(pool.acquire(tenant, 60, borrower=Borrower("select 2")))
        await eventually(lambda: pool.waiters.count == 1)
        pool.release(at_once, reusable=True)
        assert at_once.borrower is not borrower
        lent = await waiting
        assert lent.borrower is not None
        assert lent.borrower.statement == "select 2"
        pool.release(lent, reusable=True)
