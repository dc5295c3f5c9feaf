"""The reset between two leases, case by case: each thing would be left, and none is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.domain.errors import StatementEndedLease
from app.domain.tenant import PoolStrategy
from app.pools.isolation import PerTenantIsolation, SharedIsolation
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState
from tests.fixtures.pools import OF_ONE, manager_on, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


@pytest.fixture
async def manager(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """Pools of one connection, so that the next borrower gets the same one."""
    async with manager_on(database, configs=OF_ONE) as manager:
        yield manager


@pytest.fixture
async def acme(manager: TenantPoolManager) -> TenantState:
    """A tenant with a schema of its own."""
    return await provisioned(manager, "acme")


LEFT_BEHIND = {
    "a setting": ("SET work_mem = '77MB'", "SHOW work_mem", "77MB"),
    "a role": ("SET ROLE tenant_other", "SELECT current_user", "tenant_other"),
    "a session authorization": (
        "SET SESSION AUTHORIZATION tenant_acme; SET ROLE tenant_other",
        "SELECT current_user",
        "tenant_other",
    ),
    "a temporary table": (
        "CREATE TEMP TABLE left_behind AS SELECT 42 AS id",
        "SELECT to_regclass('pg_temp.left_behind')::text",
        "left_behind",
    ),
    "a cursor": (
        "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 42",
        "SELECT name FROM pg_cursors",
        "left_behind",
    ),
    "a channel": ("LISTEN left_behind", "SELECT pg_listening_channels()", "left_behind"),
    "an advisory lock": (
        "SELECT pg_advisory_lock(77)",
        "SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "77",
    ),
    "a sequence's current value": (
        "CREATE SEQUENCE IF NOT EXISTS counter; SELECT nextval('counter')",
        "SELECT lastval()::text",
        "1",
    ),
    "a tenant's name": (
        "SET app.tenant_id = 'acme'",
        "SELECT current_setting('app.tenant_id', true)",
        "acme",
    ),
}


async def peek(manager: TenantPoolManager, look: str) -> object:
    """What the next borrower sees, None if it does not exist."""
    async with manager.lease("acme", transaction=False) as connection:
        try:
            return await connection.fetchval(look)
        except asyncpg.ObjectNotInPrerequisiteStateError:
            return None  # lastval() is not defined


@pytest.mark.parametrize("vector", LEFT_BEHIND)
async def test_nothing_is_left_to_the_next_borrower(
    manager: TenantPoolManager, acme: TenantState, database: Database, vector: str
) -> None:
    leave, look, leak = LEFT_BEHIND[vector]
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE tenant_other; GRANT tenant_other TO tenant_acme")
    for transaction in (True, False):
        async with manager.lease("acme", transaction=transaction) as connection:
            await connection.execute(leave)
        assert await peek(manager, look) != leak
    assert acme.recorder.connections_opened == 1


@pytest.mark.parametrize("vector", LEFT_BEHIND)
async def test_without_the_reset_it_would_be_left(
    manager: TenantPoolManager,
    acme: TenantState,
    database: Database,
    vector: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.pools.session_reset.RESET", "SELECT 1")
    monkeypatch.setattr(PerTenantIsolation, "advisory_unlock", lambda *_: "SELECT 1")
    leave, look, leak = LEFT_BEHIND[vector]
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE tenant_other; GRANT tenant_other TO tenant_acme")
    async with manager.lease("acme") as connection:
        await connection.execute(leave)
    assert await peek(manager, look) == leak


@pytest.mark.parametrize("vector", LEFT_BEHIND)
async def test_nothing_is_left_to_a_borrower_who_waits_even_if_it_rolls_back(
    manager: TenantPoolManager, acme: TenantState, database: Database, vector: str
) -> None:
    leave, look, leak = LEFT_BEHIND[vector]
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE tenant_other; GRANT tenant_other TO tenant_acme")
    seen: list[object] = []

    async def next_one() -> None:
        async with manager.lease("acme") as connection:
            for _ in range(2):
                with contextlib.suppress(asyncpg.ObjectNotInPrerequisiteStateError):
                    seen.append(await connection.fetchval(look))
                # Out of the transaction that began with the reset.
                await connection.execute("ROLLBACK")

    async with manager.lease("acme") as connection:
        await connection.execute(leave)
        waiting = asyncio.create_task(next_one(), name="next")
        await eventually(lambda: acme.waiting == 1)
    with pytest.raises(StatementEndedLease):
        await waiting
    assert leak not in seen
    assert acme.recorder.connections_opened == 1


async def test_a_listeners_callback_is_not_left(
    manager: TenantPoolManager, acme: TenantState, database: Database
) -> None:
    heard: list[str] = []

    def listener(who: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - asyncpg's own shape
        return lambda *_: heard.append(who)

    async with manager.lease("acme", transaction=False) as connection:
        await connection.add_listener("news", listener("first"))
        connection.add_log_listener(listener("log"))
        connection.add_query_logger(listener("query"))
    heard.clear()
    async with manager.lease("acme", transaction=False) as connection:
        await connection.add_listener("news", listener("second"))
        async with database.connected() as admin:
            await admin.execute("NOTIFY news")
        await connection.execute("DO $$ BEGIN RAISE NOTICE 'x'; END $$")
        await eventually(lambda: heard)
    assert heard == ["second"]
    assert acme.recorder.connections_opened == 1


async def test_a_shared_tenants_advisory_lock_is_not_left(
    manager: TenantPoolManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = await provisioned(manager, "small", PoolStrategy.SHARED)
    lock, look, leak = LEFT_BEHIND["an advisory lock"]
    for error in (None, ZeroDivisionError()):
        with contextlib.suppress(ZeroDivisionError):
            async with manager.lease("small") as connection:
                await connection.execute(lock)
                if error:
                    raise error
        async with manager.lease("small") as connection:
            assert await connection.fetchval(look) is None
    monkeypatch.setattr(SharedIsolation, "advisory_unlock", lambda *_: "SELECT 1")
    async with manager.lease("small") as connection:
        await connection.execute(lock)
    async with manager.lease("small") as connection:
        assert await connection.fetchval(look) == leak
    assert small.recorder.connections_acquired == small.recorder.connections_released


async def test_an_advisory_lock_is_kept_until_the_work_is_committed(
    manager: TenantPoolManager, acme: TenantState, database: Database
) -> None:
    async with manager.lease("acme") as connection:
        await connection.execute("CREATE TABLE guarded (id int)")
    async with database.connected() as other, database.connected() as observer:
        lock = "SELECT pg_advisory_lock(77)"
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
        async with manager.lease("acme") as connection:
            await connection.execute(lock)
            await connection.execute("INSERT INTO guarded VALUES (1)")
            waiting = asyncio.create_task(other.execute(lock))
            await eventually(lambda: observer.fetchval(waits))
        await waiting
        assert await other.fetchval("SELECT count(*) FROM tenant_acme.guarded") == 1
