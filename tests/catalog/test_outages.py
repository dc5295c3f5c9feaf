"""The catalog can go away and come back at any moment; bugs are not outages."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from traceback import format_exception
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from app import wire
from app.catalog.catalog import Catalog
from app.catalog.database import CONNECTIONS, CatalogAddress, translate_outages
from app.catalog.migrate import migrate
from app.domain.errors import CatalogUnavailable, RecommendationNotFound, StaleVersion
from app.domain.tenant import Tenant
from app.embedded import EmbeddedPostgres
from tests.catalog.values import event, spec
from tests.fixtures.catalog import address_of
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import restarted, superuser_of
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually


@asynccontextmanager
async def opened(
    address: CatalogAddress, *, epoch: int | None = None, deadline: float = 5.0
) -> AsyncIterator[Catalog]:
    catalog = Catalog(address, epoch=epoch, deadline=deadline)
    try:
        yield catalog
    finally:
        await catalog.close()


def checked_out(catalog: Catalog) -> int:
    """The number of connections in use."""
    pool = catalog._database._writer.pool
    return pool.checkedout()  # type: ignore[attr-defined,no-any-return]


def save(catalog: Catalog, **changes: Any) -> asyncio.Task[tuple[Tenant, bool]]:
    saving = catalog.tenants.save(spec(**changes), event=event())
    return asyncio.create_task(saving, name="save")


async def waiting_for_locks(connection: asyncpg.Connection) -> list[int]:
    """The back-ends in this database that wait for a lock."""
    rows = await connection.fetch(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return [pid for [pid] in rows]


async def test_an_answer_that_breaks_off_is_an_outage(
    catalog_address: CatalogAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is asyncpg's error when the server ends a connection just before a query."""
    said = "cannot switch to state 12; another operation (2) is in progress"
    with pytest.raises(CatalogUnavailable), translate_outages():
        raise asyncpg.InternalClientError(said)

    async def ended(*_: Any, **__: Any) -> asyncpg.Connection:
        raise asyncpg.InternalClientError(said)

    monkeypatch.setattr(wire, "connect", ended)
    async with opened(catalog_address, epoch=1) as catalog:
        with pytest.raises(CatalogUnavailable):
            await catalog.ping()
        with pytest.raises(CatalogUnavailable, match=r"nothing was changed\.$"):
            await save(catalog)


async def test_a_catalog_never_used_is_not_available(
    catalog_address: CatalogAddress,
) -> None:
    async with opened(catalog_address) as catalog:
        assert not catalog.available
        await catalog.ping()
        assert catalog.available


async def test_a_refused_login_is_an_outage_and_reveals_no_secret(
    catalog_address: CatalogAddress,
) -> None:
    address = replace(catalog_address, password="wrong-horse")
    async with opened(address) as catalog:
        with pytest.raises(CatalogUnavailable) as raised:
            await catalog.ping()
        assert "changed" not in raised.value.detail
        with pytest.raises(CatalogUnavailable, match=r"; nothing was changed\.$") as refused:
            await save(catalog)
    for each in (raised, refused):
        assert "password authentication failed" in repr(each.value.__cause__)
    text = "".join(format_exception(raised.value)) + repr(address) + repr(catalog)
    assert "wrong-horse" not in text


async def test_a_full_disk_is_named_and_nothing_is_changed(
    catalog: Catalog, catalog_database: Database
) -> None:
    async with catalog_database.connected() as connection:
        await connection.execute(
            """
            CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
            CREATE TRIGGER full_disk BEFORE INSERT ON tenants EXECUTE FUNCTION full_disk();
            """
        )
    with pytest.raises(CatalogUnavailable, match=r": its disk is full; nothing was changed\.$"):
        await save(catalog)
    assert await catalog.tenants.load() == ()
    assert catalog.available


async def test_timeouts_that_are_set_for_its_database_do_not_apply(
    catalog_database: Database,
) -> None:
    """As a hoster sets them, for applications; an idle leader would lose its lock."""
    timeouts = (*wire.NO_TIMEOUTS, "transaction_timeout")
    async with catalog_database.connected() as admin:
        for timeout in timeouts:
            name = catalog_database.database
            await admin.execute(f"ALTER DATABASE {name} SET {timeout} = '10s'")
    login = address_of(catalog_database).named("test")
    connection = await wire.connect(login, timeout=60)
    try:
        for timeout in timeouts:
            assert await connection.fetchval(f"SHOW {timeout}") == "0"
    finally:
        await connection.close()


async def test_a_missing_database_is_an_outage(catalog_address: CatalogAddress) -> None:
    async with opened(replace(catalog_address, database="nowhere")) as catalog:
        with pytest.raises(CatalogUnavailable):
            await catalog.ping()


async def test_refused_and_cut_connections_heal(
    catalog_address: CatalogAddress, fault_proxy: FaultProxy
) -> None:
    async with opened(replace(catalog_address, port=fault_proxy.port)) as catalog:
        await save(catalog)
        await fault_proxy.cut()
        for _ in range(CONNECTIONS + 1):
            with pytest.raises(CatalogUnavailable):
                await save(catalog, weight=2)
            assert not catalog.available
        await fault_proxy.pass_through()
        await save(catalog, weight=3)
        assert catalog.available
        assert [tenant.spec.weight for tenant in await catalog.tenants.load()] == [3]
        assert checked_out(catalog) == 0


async def test_a_change_whose_commit_got_no_answer_is_not_called_undone(
    catalog_address: CatalogAddress, catalog_database: Database, fault_proxy: FaultProxy
) -> None:
    async def change() -> None:
        async with catalog._database.transaction() as connection:
            await connection.execute(text("CREATE TABLE kept ()"))
            fault_proxy.black_hole(up=False)

    async with opened(replace(catalog_address, port=fault_proxy.port), deadline=3.0) as catalog:
        with pytest.raises(CatalogUnavailable, match=r"; it is unknown if anything was changed\.$"):
            await change()
        await fault_proxy.pass_through()
    async with catalog_database.connected() as connection:
        await connection.fetch("SELECT FROM kept")


async def test_a_silent_catalog_is_given_up_at_the_deadline(
    catalog_address: CatalogAddress, fault_proxy: FaultProxy
) -> None:
    address = replace(catalog_address, port=fault_proxy.port)
    async with opened(address, deadline=3.0) as catalog:
        await save(catalog)
        fault_proxy.black_hole()
        for _ in range(2):
            with pytest.raises(CatalogUnavailable):
                await catalog.ping()
        assert checked_out(catalog) == 0
        await fault_proxy.pass_through()
        await eventually(lambda: answers(catalog))
        assert catalog.available


async def answers(catalog: Catalog) -> bool:
    """Whether the catalog is back; its deadline is short, and the machine may be busy."""
    try:
        await catalog.ping()
    except CatalogUnavailable:
        return False
    return True


async def test_a_stopped_postgres_is_an_outage_and_its_return_ends_it(
    private_postgres: EmbeddedPostgres,
) -> None:
    address = address_of(await superuser_of(private_postgres))
    await migrate(address)
    async with opened(address) as catalog:
        await asyncio.gather(*(save(catalog, weight=1) for _ in range(8)))
        await restarted(private_postgres)
        await catalog.ping()
        await private_postgres.stop()
        with pytest.raises(CatalogUnavailable):
            await catalog.ping()


async def test_a_terminated_backend_loses_its_operation_only(
    catalog: Catalog, catalog_database: Database
) -> None:
    await save(catalog)
    async with catalog_database.connected() as other, catalog_database.connected() as admin:
        async with other.transaction():
            await other.execute("SELECT FROM tenants FOR UPDATE")
            saving = save(catalog, weight=2)
            await eventually(lambda: waiting_for_locks(admin))
            [pid] = await waiting_for_locks(admin)
            await admin.execute("SELECT pg_terminate_backend($1)", pid)
            with pytest.raises(CatalogUnavailable):
                await saving
        assert not catalog.available
        [tenant] = await catalog.tenants.load()
        assert tenant.spec.weight == 1
        assert catalog.available


async def test_a_caller_without_a_free_connection_waits_for_the_deadline(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with opened(catalog_address, deadline=1.0) as catalog:
        await save(catalog)
        async with catalog_database.connected() as other, other.transaction():
            await other.execute("SELECT FROM tenants FOR UPDATE")
            saves = [save(catalog, weight=2) for _ in range(CONNECTIONS + 2)]
            outcomes = await asyncio.gather(*saves, return_exceptions=True)
        assert all(isinstance(outcome, CatalogUnavailable) for outcome in outcomes)
        assert checked_out(catalog) == 0
        await save(catalog, weight=2)


async def test_a_write_on_a_read_only_catalog_is_an_outage(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    name = catalog_database.database
    async with catalog_database.connected() as connection:
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with opened(catalog_address, epoch=1) as catalog:
        assert await catalog.tenants.load() == ()
        with pytest.raises(RecommendationNotFound):
            await catalog.recommendations.get(uuid4())
        with pytest.raises(CatalogUnavailable):
            await save(catalog)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.AdminShutdownError,
        asyncpg.CannotConnectNowError,
        asyncpg.ConnectionDoesNotExistError,
        asyncpg.DeadlockDetectedError,
        asyncpg.DiskFullError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.InvalidCachedStatementError,
        asyncpg.LockNotAvailableError,
        asyncpg.PostgresIOError,
        asyncpg.QueryCanceledError,
        asyncpg.TooManyConnectionsError,
        asyncpg.UndefinedColumnError,
        asyncpg.UndefinedTableError,
        ConnectionResetError,
        TimeoutError,
    ],
)
def test_what_counts_as_an_outage(error: Callable[[str], Exception]) -> None:
    with pytest.raises(CatalogUnavailable) as raised, translate_outages():
        raise error("because")
    assert str(raised.value.__cause__) == "because"


async def test_a_refused_change_shows_that_the_catalog_is_there(catalog: Catalog) -> None:
    with pytest.raises(StaleVersion):
        await catalog.tenants.save(spec(), event=event(), expected_generation=7)
    assert catalog.available


@pytest.mark.parametrize(
    "error", [asyncpg.PostgresSyntaxError, asyncpg.UniqueViolationError, ValueError]
)
def test_what_does_not(error: type[Exception]) -> None:
    with pytest.raises(error), translate_outages():
        raise error("because")


async def test_a_column_that_changes_its_type_costs_one_answer_at_most(
    catalog: Catalog, catalog_database: Database
) -> None:
    await save(catalog, weight=2)
    await catalog.tenants.load()
    async with catalog_database.connected() as admin:
        await admin.execute("ALTER TABLE tenants ALTER weight TYPE bigint")
    with suppress(CatalogUnavailable):
        await catalog.tenants.load()
    assert [tenant.spec.weight for tenant in await catalog.tenants.load()] == [2]


async def test_cancelled_callers_leak_nothing(catalog: Catalog, catalog_database: Database) -> None:
    """Wherever it hits them: each of these is cancelled half a millisecond later."""
    for delay in range(40):
        callers = [save(catalog, tenant=f"t{number}") for number in range(CONNECTIONS + 2)]
        await asyncio.sleep(delay / 2000)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        assert checked_out(catalog) == 0
    await catalog.ping()
    async with catalog_database.connected() as connection:
        states = """
            SELECT count(*) <= $1 AND count(*) FILTER (WHERE state <> 'idle') = 0
            FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
        """
        await eventually(lambda: connection.fetchval(states, CONNECTIONS))


async def test_a_caller_cancelled_in_the_silence_leaks_nothing(
    catalog_address: CatalogAddress, fault_proxy: FaultProxy
) -> None:
    async with opened(replace(catalog_address, port=fault_proxy.port)) as catalog:
        await catalog.ping()
        fault_proxy.black_hole()
        caller = save(catalog)
        await eventually(lambda: checked_out(catalog) == 1)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert checked_out(catalog) == 0
        await fault_proxy.pass_through()
        await catalog.ping()
