"""A lease's clean-up begins the next lease in the same round trip, for its likely borrower."""

# ruff: noqa: PT012 - it is the whole block of a lease that raises

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app.domain.errors import StatementEndedLease
from app.domain.pool import PoolSize
from app.domain.tenant import PoolStrategy
from app.pools.connection import PooledConnection
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from tests.fixtures.pools import OF_ONE, finished, manager_on, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

_TENANT = "SELECT current_setting('app.tenant_id', true)"


@pytest.fixture
async def manager(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """One connection for the two shared tenants `one` and `two`, one for `own`."""
    async with manager_on(database, configs=OF_ONE) as manager:
        for name in ("one", "two"):
            await provisioned(manager, name, PoolStrategy.SHARED)
        await provisioned(manager, "own")
        async with manager.lease("one"):
            pass
        yield manager


@pytest.fixture
def sent(manager: TenantPoolManager, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sent to Postgres around the work, one entry per round trip."""
    sent: list[str] = []
    run = PooledConnection.run

    async def noted(connection: PooledConnection, statements: str) -> None:
        sent.append(statements)
        await run(connection, statements)

    monkeypatch.setattr(PooledConnection, "run", noted)
    return sent


class Callers:
    """Callers that wait while somebody holds the only connection."""

    def __init__(self, manager: TenantPoolManager) -> None:
        self.manager = manager
        self.tasks: list[asyncio.Task[str]] = []

    async def wait(self, tenant: str, **terms: Any) -> asyncio.Task[str]:
        """Let one more caller wait; its work returns whose context it is in."""

        async def work() -> str:
            async with self.manager.lease(tenant, **terms) as connection:
                return str(await connection.fetchval(_TENANT))

        pool = pool_of(self.manager, self.manager.tenants.state(tenant).tenant.spec.pool_id)
        waiters = set(pool.waiters)
        self.tasks.append(asyncio.create_task(work(), name=f"{tenant} waits"))
        await eventually(lambda: set(pool.waiters) - waiters)
        return self.tasks[-1]

    async def answers(self) -> list[object]:
        return await finished(self.tasks)


@pytest.fixture
def callers(manager: TenantPoolManager) -> Callers:
    return Callers(manager)


def pool_of(manager: TenantPoolManager, pool_id: str = "shared@local") -> Pool:
    pool = manager.find(pool_id)
    assert pool is not None
    return pool


def opened(manager: TenantPoolManager) -> int:
    return pool_of(manager).recorder.connections_opened


async def begun_for_nobody(manager: TenantPoolManager, callers: Callers) -> Pool:
    """The shared pool, while its connection must undo what was begun on it."""
    pool = pool_of(manager)
    async with manager.lease("one"):
        expected = await callers.wait("two")
        asyncio.get_running_loop().call_soon(expected.cancel)
    assert pool.connections.undoing_prefetch == 1
    return pool


async def test_whoever_waits_needs_no_round_trip_to_begin(
    manager: TenantPoolManager, sent: list[str], callers: Callers
) -> None:
    async with manager.lease("one"):
        for tenant in ("one", "two", "two"):
            await callers.wait(tenant)
    assert await callers.answers() == ["one", "two", "two"]
    assert len(sent) == 1 + 4
    assert opened(manager) == 1


async def test_with_nobody_waiting_nothing_is_begun(
    manager: TenantPoolManager, sent: list[str]
) -> None:
    for _ in range(2):
        async with manager.lease("one"):
            pass
    assert len(sent) == 4
    assert sent[0] == sent[2]
    assert "; BEGIN" not in sent[1]


@pytest.mark.parametrize(
    "instead",
    [("two", {}), ("one", {"read_only": True}), ("one", {})],
    ids=["another tenant", "other terms", "the same, who asked later"],
)
async def test_who_comes_instead_gets_a_context_of_its_own(
    manager: TenantPoolManager,
    monkeypatch: pytest.MonkeyPatch,
    sent: list[str],
    callers: Callers,
    instead: tuple[str, dict[str, bool]],
) -> None:
    run = PooledConnection.run
    tenant, terms = instead

    async def meanwhile(connection: PooledConnection, statements: str) -> None:
        await run(connection, statements)
        monkeypatch.setattr(PooledConnection, "run", run)
        expected.cancel()
        await callers.wait(tenant, **terms)

    async with manager.lease("one"):
        expected = await callers.wait("one")
        monkeypatch.setattr(PooledConnection, "run", meanwhile)
    cancelled, response = await callers.answers()
    assert isinstance(cancelled, asyncio.CancelledError)
    assert response == tenant
    assert sent[-2].startswith("ROLLBACK; BEGIN")
    assert opened(manager) == 1


async def test_what_was_begun_for_nobody_is_undone(
    manager: TenantPoolManager, database: Database, sent: list[str], callers: Callers
) -> None:
    pool = await begun_for_nobody(manager, callers)
    assert "tenant_id = 'two'" in sent[-1]
    await eventually(lambda: not pool.connections.undoing_prefetch)
    assert pool.metrics.idle_connections == 1
    async with database.connected() as admin:
        states = await admin.fetch(
            "SELECT state FROM pg_stat_activity WHERE usename = 'poolkeeper_shared'"
        )
    assert [state for [state] in states] == ["idle"]
    async with manager.lease("one") as connection:
        assert await connection.fetchval(_TENANT) == "one"
    assert opened(manager) == 1


async def test_a_clean_up_that_fails_begins_nothing(
    manager: TenantPoolManager, callers: Callers
) -> None:
    with pytest.raises(StatementEndedLease):
        async with manager.lease("one") as connection:
            await connection.execute("SET LOCAL app.tenant_id = 'two'")
            await callers.wait("one")
    assert await callers.answers() == ["one"]
    assert opened(manager) == 2


async def test_after_read_only_work_the_next_lease_begins_by_itself(
    manager: TenantPoolManager, sent: list[str], callers: Callers
) -> None:
    async with manager.lease("one", read_only=True):
        await callers.wait("one")
    assert await callers.answers() == ["one"]
    assert len(sent) == 4


async def test_what_the_next_lease_changes_is_rolled_back_as_ever(
    manager: TenantPoolManager, database: Database
) -> None:
    async with database.connected() as admin:
        await admin.execute(
            "CREATE TABLE everybody (id int); GRANT ALL ON everybody TO poolkeeper_shared"
        )

        async def failing() -> None:
            async with manager.lease("two") as connection:
                await connection.execute("INSERT INTO everybody VALUES (1)")
                await connection.execute("SELECT nothing")

        async with manager.lease("one") as connection:
            await connection.execute("INSERT INTO everybody VALUES (2)")
            waiting = asyncio.create_task(failing(), name="two")
            await eventually(lambda: manager.tenants.state("two").waiting == 1)
        with pytest.raises(asyncpg.UndefinedColumnError):
            await waiting
        assert await admin.fetchval("SELECT sum(id) FROM everybody") == 2


@pytest.mark.parametrize("what", ["drain", "pause", "recycle", "resize"])
async def test_what_is_undone_stays_only_if_its_pool_keeps_it(
    manager: TenantPoolManager, callers: Callers, what: str
) -> None:
    pool_of(manager).resize(PoolSize(min_size=0, max_size=2, warmup_size=0))
    draining = None
    async with manager.lease("one"):
        pool = await begun_for_nobody(manager, callers)
        if what == "drain":
            draining = asyncio.create_task(pool.drain(5), name="drain")
            await asyncio.sleep(0)
        elif what == "resize":
            pool.resize(PoolSize(min_size=0, max_size=1, warmup_size=0))
        else:
            getattr(pool, what)()
        await eventually(lambda: not pool.connections.undoing_prefetch)
        assert not pool.connections.idle
    if draining is not None:
        await draining
    budget = manager.servers["local"].budget
    await eventually(lambda: budget.used == pool.metrics.total_connections)
    assert budget.used == (what == "resize")


async def test_who_comes_meanwhile_waits_for_it_and_opens_no_other(
    manager: TenantPoolManager, callers: Callers
) -> None:
    pool_of(manager).resize(PoolSize(min_size=0, max_size=3, warmup_size=0))
    async with manager.lease("one"):
        pass
    pool_of(manager).resize(PoolSize(min_size=0, max_size=1, warmup_size=0))
    pool = await begun_for_nobody(manager, callers)
    await callers.answers()  # until it has left, it counts as waiting
    pool.resize(PoolSize(min_size=0, max_size=3, warmup_size=0))
    async with manager.lease("one") as connection:
        assert await connection.fetchval(_TENANT) == "one"
    assert opened(manager) == 1


async def test_a_connection_that_ends_meanwhile_is_replaced_unseen(
    manager: TenantPoolManager, monkeypatch: pytest.MonkeyPatch, callers: Callers
) -> None:
    run = PooledConnection.run

    async def ends(connection: PooledConnection, statements: str) -> None:
        await run(connection, statements)
        monkeypatch.setattr(PooledConnection, "run", run)
        connection.terminate()

    async with manager.lease("one"):
        await callers.wait("two")
        monkeypatch.setattr(PooledConnection, "run", ends)
    assert await callers.answers() == ["two"]
    assert opened(manager) == 2


async def test_what_a_rollback_would_not_undo_is_not_begun_ahead(
    manager: TenantPoolManager, sent: list[str], callers: Callers
) -> None:
    async with manager.lease("own"):
        await callers.wait("own", transaction=False, read_only=True, statement_timeout=60)
    await callers.answers()
    assert "default_transaction_read_only" not in sent[1]
    assert sent[2].startswith("SET default_transaction_read_only")


async def test_nobody_stays_expected_by_a_clean_up_that_failed(
    manager: TenantPoolManager, callers: Callers
) -> None:
    with pytest.raises(StatementEndedLease):
        async with manager.lease("one") as connection:
            await connection.execute("SET LOCAL app.tenant_id = 'two'")
            for _ in range(2):
                await callers.wait("one")
    assert not pool_of(manager).waiters.expected
    assert await callers.answers() == ["one", "one"]
