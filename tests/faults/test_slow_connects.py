"""Connecting takes long: nobody waits for a connection of his own, and there is no storm."""

import asyncio
from typing import Any

import pytest

from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools import driver
from app.wire import Login
from tests.fixtures.load import load_on
from tests.fixtures.pools import account, bench_on, finished, provisioned, through
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched, watched_manager_on

MAX_CONNECTING = 2


class Attempts:
    """The number of running logins of tenants; they are real."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0

    async def connect(self, login: Login, **how: Any) -> object:
        counts = login.user.startswith("tenant_")
        self.now += counts
        self.total += counts
        self.most = max(self.most, self.now)
        try:
            return await self._connect(login, **how)
        finally:
            self.now -= counts

    _connect = staticmethod(driver.connect)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    """Counts calls of `driver.connect`."""
    attempts = Attempts()
    monkeypatch.setattr(driver, "connect", attempts.connect)
    return attempts


async def test_no_more_logins_are_under_way_than_allowed(
    database: Database, fault_proxy: FaultProxy, scrub_roles: None, attempts: Attempts
) -> None:
    configs = {PoolStrategy.PER_TENANT: PoolConfig.per_tenant(acquire_timeout=60)}
    async with watched_manager_on(
        database, proxy=fault_proxy, configs=configs, max_connecting=MAX_CONNECTING
    ) as manager:
        for name in "abc":
            await provisioned(manager, name)
        fault_proxy.latency_seconds = 0.02
        async with load_on(manager, "a", "b", "c", patience=60) as load:
            for _ in range(3):
                await load.goes_on(10)
                for pool in list(manager.pools()):
                    pool.recycle()
            await load.goes_on(10)
            fault_proxy.latency_seconds = 0
        assert load.failures == []
    assert attempts.most == MAX_CONNECTING
    assert attempts.total > 3 * MAX_CONNECTING
    assert attempts.now == 0


async def test_callers_are_served_by_whatever_is_free_first(
    database: Database, fault_proxy: FaultProxy
) -> None:
    async with (
        watched(database, budget=2),
        bench_on(through(database, fault_proxy), budget=2) as bench,
    ):
        pool, acme = bench.pool(2), account()
        first = await pool.acquire(acme, 5)
        fault_proxy.latency_seconds = 0.3
        caller = asyncio.create_task(pool.acquire(acme, 10))
        await eventually(lambda: pool.connections.connecting == 1)
        pool.release(first, reusable=True)
        assert (await finished([caller]))[0] is first
        assert pool.connections.connecting == 1
        fault_proxy.latency_seconds = 0
        await eventually(lambda: pool.metrics.idle_connections == 1)
        pool.release(first, reusable=True)
        assert pool.metrics.idle_connections == 2


async def test_a_caller_who_gives_up_leaves_its_connection_to_the_next(
    database: Database, fault_proxy: FaultProxy
) -> None:
    async with (
        watched(database, budget=1),
        bench_on(through(database, fault_proxy), budget=1) as bench,
    ):
        pool, acme = bench.pool(1), account()
        fault_proxy.latency_seconds = 0.03
        impatient = asyncio.create_task(pool.acquire(acme, 10))
        await eventually(lambda: pool.connections.connecting == 1)
        patient = asyncio.create_task(pool.acquire(acme, 10))
        await asyncio.sleep(0)
        impatient.cancel()
        pool.release((await finished([patient]))[0], reusable=True)
        assert pool.recorder.connections_opened == 1
