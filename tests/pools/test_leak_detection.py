"""Leases held for too long: reported with who, where and how long, and again when returned."""

from __future__ import annotations

import asyncio
from time import monotonic

import structlog

from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from tests.fixtures.pools import manager_on, provisioned
from tests.fixtures.postgres import Database

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
                pool = manager.find("acme")
                assert pool is not None
                assert pool.leak_suspects(monotonic()) == []
                later = monotonic() + 61
                [suspect] = pool.leak_suspects(later)
                assert pool.leak_suspects(later) == [suspect]
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
        pool = manager.find("acme")
        assert pool is not None
        assert pool.leak_suspects(monotonic() + 3600) == []
