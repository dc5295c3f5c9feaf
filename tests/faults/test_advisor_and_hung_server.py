"""A server that no longer answers new logins: the advisor goes on, and the pool follows later."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from app.domain.recommendation import RecommendationStatus
from app.domain.tenant import AdvisorMode
from app.pools.manager import TenantPoolManager
from tests.fixtures.catalog import address_of
from tests.fixtures.control import PERSON, wired
from tests.fixtures.pools import manager_on, pool_of, through
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually

_LIMIT = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'tenant_acme'"


async def test_a_server_that_hangs_delays_no_tick_and_its_pool_is_resized_later(
    database: Database,
    catalog_database: Database,
    fault_proxy: FaultProxy,
    scrub_roles: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However slow this machine is: the ticks end before the attempt to change the role does.
    monkeypatch.setattr("app.control.pools.role_limits._DEADLINE", 60.0)
    monkeypatch.setattr("app.control.pools.convergence._BACKGROUND_DEADLINE", 60.0)
    async with manager_on(through(database, fault_proxy), connect_timeout=60.0) as manager:
        control = wired(manager, address_of(catalog_database), fault_proxy)
        await control.tenant("acme")
        apply = partial(replace, mode=AdvisorMode.APPLY)
        await control.advisor_loop.put_settings(apply, PERSON)
        done = asyncio.Event()

        async def borrow() -> None:
            async with manager.lease("acme", timeout=60):
                await done.wait()

        async with asyncio.TaskGroup() as callers:
            for _ in range(5 + 4):
                callers.create_task(borrow())
            await eventually(lambda: waiting(manager) == 4)
            pool = pool_of(manager, "acme")
            fault_proxy.hold_new()
            for _ in range(2):
                control.advisor_loop._due = 0.0
                await control.poller.run_once()
            # The ticks have ended, and the role's limit cannot be raised yet.
            await eventually(lambda: control.locks.is_held("acme"))
            assert pool.size.max_size == 5
            [applied] = await control.catalog.recommendations.page()
            assert applied.status is RecommendationStatus.APPLIED
            await fault_proxy.pass_through()
            await eventually(lambda: pool.size.max_size == 10)
            async with database.connected() as admin:
                assert await admin.fetchval(_LIMIT) == 10 + 2
            done.set()
        await control.convergence.close(10)
        await control.catalog.close()


def waiting(manager: TenantPoolManager) -> int:
    """The number of callers that wait for the pool."""
    pool = manager.find("acme")
    return pool.metrics.waiting_requests if pool else 0
