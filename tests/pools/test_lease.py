"""What a borrower can rely on; nothing is left to the next one."""

# ruff: noqa: PT012 - it is the whole block of a lease that raises

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from app.domain.errors import (
    InvalidInput,
    LeaseLost,
    NotProvisioned,
    PoolTimeout,
    SchemaMissing,
    StatementEndedLease,
    StatementFailed,
    TenantDeleting,
    TenantNotFound,
)
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState
from tests.fixtures.pools import OF_ONE, finished, manager_on, pool_of, provisioned, tenant
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


@pytest.fixture
async def manager(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """Pools of one connection, so that the next borrower gets the same one."""
    async with manager_on(database, configs=OF_ONE) as manager:
        yield manager


@pytest.fixture
async def acme(manager: TenantPoolManager) -> TenantState:
    """A tenant with a schema of its own and one table."""
    state = await provisioned(manager, "acme")
    async with manager.lease("acme") as connection:
        await connection.execute("CREATE TABLE note (id int PRIMARY KEY)")
    return state


async def notes(manager: TenantPoolManager) -> list[int]:
    async with manager.lease("acme", read_only=True) as connection:
        return [note for [note] in await connection.fetch("SELECT id FROM note ORDER BY id")]


async def test_work_is_committed_when_the_block_ends(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async with manager.lease("acme") as connection:
        await connection.execute("INSERT INTO note VALUES (1)")
    assert await notes(manager) == [1]


async def test_work_is_rolled_back_on_an_error_and_the_connection_stays(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with manager.lease("acme") as connection:
            await connection.execute("INSERT INTO note VALUES (1)")
            raise ZeroDivisionError
    assert await notes(manager) == []
    assert acme.recorder.connections_opened == 1


async def test_an_error_of_postgres_reaches_the_borrower_as_it_is(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with manager.lease("acme") as connection:
            await connection.execute("SELECT * FROM nowhere")
    assert await notes(manager) == []
    assert acme.recorder.connections_opened == 1


async def test_a_nested_transaction_is_a_savepoint(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async with manager.lease("acme") as connection:
        await connection.execute("INSERT INTO note VALUES (1)")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute("INSERT INTO note VALUES (2)")
                await connection.execute("INSERT INTO note VALUES (1)")
        async with connection.transaction():
            await connection.execute("INSERT INTO note VALUES (3)")
    assert await notes(manager) == [1, 3]


async def test_a_cursor_works(manager: TenantPoolManager, acme: TenantState) -> None:
    async with manager.lease("acme") as connection:
        rows = [row[0] async for row in connection.cursor("SELECT generate_series(1, 100)")]
    assert rows == list(range(1, 101))


async def test_the_connection_is_useless_after_the_lease(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async with manager.lease("acme") as connection:
        statement = await connection.prepare("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError):
        await connection.execute("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError):
        await statement.fetch()


async def test_without_a_transaction_each_statement_stands_for_itself(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with manager.lease("acme", transaction=False) as connection:
            await connection.execute("INSERT INTO note VALUES (1)")
            await connection.execute("VACUUM note")
            raise ZeroDivisionError
    assert await notes(manager) == [1]


async def test_an_open_transaction_is_rolled_back_even_if_the_lease_had_none(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async with manager.lease("acme", transaction=False) as connection:
        await connection.execute("BEGIN; INSERT INTO note VALUES (1)")
    assert await notes(manager) == []


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_read_only_lease_refuses_writes(
    manager: TenantPoolManager, acme: TenantState, *, transaction: bool
) -> None:
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with manager.lease("acme", transaction=transaction, read_only=True) as connection:
            await connection.execute("INSERT INTO note VALUES (1)")
    async with manager.lease("acme", transaction=transaction) as connection:
        await connection.execute("INSERT INTO note VALUES (2)")
    assert await notes(manager) == [2]


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_statement_timeout_holds_for_this_lease_only(
    manager: TenantPoolManager, acme: TenantState, *, transaction: bool
) -> None:
    with pytest.raises(asyncpg.QueryCanceledError):
        async with manager.lease(
            "acme", transaction=transaction, statement_timeout=0.5
        ) as connection:
            await connection.execute("SELECT pg_sleep(60)")
    async with manager.lease("acme", transaction=transaction) as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "0"


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
async def test_work_that_ends_the_transaction_is_told_so(
    manager: TenantPoolManager, acme: TenantState, ending: str
) -> None:
    with pytest.raises(StatementEndedLease):
        async with manager.lease("acme") as connection:
            await connection.execute(ending)
    assert await notes(manager) == []


async def test_a_failed_transaction_that_the_body_swallowed_is_no_silent_rollback(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    with pytest.raises(StatementFailed, match="it was rolled back") as raised:
        async with manager.lease("acme") as connection:
            await connection.execute("INSERT INTO note VALUES (1)")
            with pytest.raises(asyncpg.UniqueViolationError):
                await connection.execute("INSERT INTO note VALUES (1)")
    assert raised.value.sqlstate == "25P02"
    assert await notes(manager) == []


async def test_a_constraint_that_fails_at_commit_is_told(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async with manager.lease("acme") as connection:
        await connection.execute(
            "ALTER TABLE note ADD parent int REFERENCES note DEFERRABLE INITIALLY DEFERRED"
        )
    with pytest.raises(StatementFailed) as raised:
        async with manager.lease("acme") as connection:
            await connection.execute("INSERT INTO note VALUES (1, 99)")
    assert raised.value.sqlstate == "23503"
    assert await notes(manager) == []


async def test_a_commit_that_is_cancelled_promises_nothing(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async with manager.lease("acme") as connection:
        await connection.execute(
            """
            CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON note
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
            """
        )
    with pytest.raises(LeaseLost):
        async with manager.lease("acme", statement_timeout=0.5) as connection:
            await connection.execute("INSERT INTO note VALUES (1)")
    assert await notes(manager) == []


@pytest.mark.parametrize("seconds", [-1, 2_147_484, float("nan"), float("inf")])
async def test_a_timeout_that_postgres_does_not_take_is_refused_at_once(
    manager: TenantPoolManager, acme: TenantState, seconds: float
) -> None:
    with pytest.raises(InvalidInput, match="statement_timeout"):
        manager.lease("acme", statement_timeout=seconds)


async def test_a_shared_tenant_gets_no_lease_without_a_transaction(
    manager: TenantPoolManager,
) -> None:
    await provisioned(manager, "small", PoolStrategy.SHARED)
    with pytest.raises(InvalidInput, match="inside a transaction only"):
        manager.lease("small", transaction=False)


@pytest.mark.parametrize(
    "escape",
    [
        "SET LOCAL app.tenant_id = 'other'",
        "COMMIT; BEGIN",
        "COMMIT AND CHAIN",
        "RESET ALL",
        "SET SESSION app.tenant_id = 'other'",
    ],
)
async def test_a_shared_lease_that_left_its_context_commits_nothing(
    manager: TenantPoolManager, database: Database, escape: str
) -> None:
    await provisioned(manager, "small", PoolStrategy.SHARED)
    async with database.connected() as admin:
        await admin.execute(
            "CREATE TABLE everybody (id int); GRANT ALL ON everybody TO poolkeeper_shared"
        )
        with pytest.raises(StatementEndedLease):
            async with manager.lease("small") as connection:
                await connection.execute(escape)
                await connection.execute("INSERT INTO everybody VALUES (1)")
        assert await admin.fetchval("SELECT count(*) FROM everybody") == 0


CHAINS = ("COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "COMMIT; BEGIN", "END WORK AND CHAIN; SELECT 1")


@pytest.mark.parametrize("strategy", PoolStrategy)
@pytest.mark.parametrize("chain", CHAINS)
async def test_another_transaction_than_the_leases_commits_nothing(
    manager: TenantPoolManager, database: Database, strategy: PoolStrategy, chain: str
) -> None:
    await provisioned(manager, "small", strategy)
    into = database
    if strategy is PoolStrategy.PER_DATABASE:
        into = replace(database, database="tenant_small")
    role = manager.isolations[strategy].role(manager.tenants.state("small").tenant.spec)
    async with into.connected() as admin:
        await admin.execute(
            f"CREATE SCHEMA everybody; CREATE TABLE everybody.note (id int); GRANT ALL ON SCHEMA "
            f'everybody TO "{role}"; GRANT ALL ON everybody.note TO "{role}"'
        )
        for _ in range(2):  # on a new connection, and on one that was used before
            with pytest.raises(StatementEndedLease):
                async with manager.lease("small") as connection:
                    await connection.execute(chain)
                    await connection.execute("INSERT INTO everybody.note VALUES (1)")
            async with manager.lease("small") as connection:
                await connection.execute("SELECT 1")
        assert await admin.fetchval("SELECT count(*) FROM everybody.note") == 0


@pytest.mark.parametrize("own", ["RESET ALL", "DEALLOCATE ALL", "SET SESSION work_mem = '1MB'"])
async def test_what_a_tenant_may_do_with_its_own_session_ends_no_lease(
    manager: TenantPoolManager, acme: TenantState, own: str
) -> None:
    for number in (1, 2):
        async with manager.lease("acme") as connection:
            await connection.execute(own)
            await connection.execute(f"INSERT INTO note VALUES ({number})")
    assert await notes(manager) == [1, 2]


async def test_a_borrower_may_choose_its_isolation_level_at_every_lease(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    for strategy, name in ((PoolStrategy.PER_TENANT, "acme"), (PoolStrategy.SHARED, "small")):
        if name == "small":
            await provisioned(manager, name, strategy)
        for _ in range(2):
            async with manager.lease(name) as connection:
                await connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                assert await connection.fetchval("SHOW transaction_isolation") == "serializable"


async def test_a_deferred_trigger_with_the_error_of_a_check_is_reported_as_itself(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async with manager.lease("acme") as connection:
        await connection.execute(
            """
            CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM 'many'::text::int; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER picky AFTER INSERT ON note
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION picky();
            """
        )
    with pytest.raises(StatementFailed, match="many") as raised:
        async with manager.lease("acme") as connection:
            await connection.execute("INSERT INTO note VALUES (1)")
    assert raised.value.sqlstate == "22P02"


# -- without a schema ------------------------------------------------------------------------------

LOST = {
    "dropped by its tenant": "",
    "dropped": "DROP SCHEMA tenant_acme CASCADE",
    "renamed": "ALTER SCHEMA tenant_acme RENAME TO elsewhere",
    "closed": "REVOKE ALL ON SCHEMA tenant_acme FROM tenant_acme",
}


@pytest.mark.parametrize("loss", LOST)
async def test_without_its_schema_a_tenants_writes_are_refused_and_never_vanish(
    manager: TenantPoolManager, acme: TenantState, database: Database, loss: str
) -> None:
    if statement := LOST[loss]:
        async with database.connected() as admin:
            await admin.execute(statement)
    else:
        async with manager.lease("acme") as connection:
            await connection.execute("DROP SCHEMA tenant_acme CASCADE")
    for write in ("CREATE TABLE precious AS SELECT 42", "CREATE SEQUENCE precious", "SELECT 1"):
        with pytest.raises(SchemaMissing, match="tenant_acme"):
            async with manager.lease("acme") as connection:
                await connection.execute(write)
    for lease in (
        manager.lease("acme", read_only=True),
        manager.lease("acme", transaction=False),
    ):
        with pytest.raises(SchemaMissing):
            async with lease:
                pass
    assert acme.recorder.connections_opened == 2, "refused leases open no further connections"
    tenant = acme.tenant
    await manager.isolations[PoolStrategy.PER_TENANT].provision(
        manager.servers["local"], tenant, adopt=False
    )
    async with manager.lease("acme") as connection:
        await connection.execute("CREATE TABLE precious AS SELECT 42")
    async with manager.lease("acme") as connection:
        assert await connection.fetchval("SELECT * FROM precious") == 42


async def test_a_schema_lost_and_used_in_the_same_lease_takes_nothing(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    with pytest.raises(SchemaMissing) as raised:
        async with manager.lease("acme", transaction=False) as connection:
            await connection.execute("DROP SCHEMA tenant_acme CASCADE")
            await connection.execute("CREATE TABLE precious AS SELECT 42")
    assert isinstance(raised.value.__cause__, asyncpg.InvalidSchemaNameError)


async def test_a_database_without_the_schema_public_takes_no_unqualified_writes(
    manager: TenantPoolManager,
) -> None:
    await provisioned(manager, "big", PoolStrategy.PER_DATABASE)
    async with manager.lease("big") as connection:
        await connection.execute("DROP SCHEMA public CASCADE")
    with pytest.raises(asyncpg.InvalidSchemaNameError):
        async with manager.lease("big") as connection:
            await connection.execute("CREATE TABLE precious AS SELECT 42")
    async with manager.lease("big") as connection:
        await connection.execute("CREATE SCHEMA public; CREATE TABLE precious AS SELECT 42")
    async with manager.lease("big") as connection:
        assert await connection.fetchval("SELECT * FROM precious") == 42


# -- who may borrow --------------------------------------------------------------------------------


async def test_leases_are_given_to_known_provisioned_tenants_only(
    manager: TenantPoolManager,
) -> None:
    with pytest.raises(TenantNotFound, match="no tenant nobody"):
        manager.lease("nobody")
    new = tenant("new", PoolStrategy.PER_TENANT)
    object.__setattr__(new, "provisioned_at", None)
    manager.put_tenant(new)
    with pytest.raises(NotProvisioned):
        manager.lease("new")
    going = tenant("going", PoolStrategy.PER_TENANT)
    object.__setattr__(going, "deleting", True)
    manager.put_tenant(going)
    with pytest.raises(TenantDeleting):
        manager.lease("going")


# -- errors on the way out, and cancellation on the way in ---------------------------------------


async def test_a_connection_lost_under_a_lease_is_told_at_its_end(
    manager: TenantPoolManager, acme: TenantState, database: Database
) -> None:
    with pytest.raises(LeaseLost):
        async with manager.lease("acme") as connection:
            await terminate(database, connection)
    assert await notes(manager) == []
    assert acme.recorder.connections_acquired == acme.recorder.connections_released


async def test_a_failure_after_the_commit_closes_the_connection_and_is_not_reported(
    manager: TenantPoolManager, database: Database
) -> None:
    await provisioned(manager, "small", PoolStrategy.SHARED)
    async with database.connected() as admin:
        await admin.execute("CREATE TABLE note (id int); GRANT ALL ON note TO poolkeeper_shared")
        async with manager.lease("small") as connection:
            await connection.execute("INSERT INTO note VALUES (1)")
            # Giving up the session's advisory locks fails without it.
            await connection.execute("DEALLOCATE __poolkeeper_unlock")
            pid = connection.get_server_pid()
        assert await admin.fetchval("SELECT count(*) FROM note") == 1
    async with manager.lease("small") as connection:
        assert connection.get_server_pid() != pid


async def test_a_refused_commit_is_told_whatever_its_message_looks_like(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async with manager.lease("acme") as connection:
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'poolkeeper.schema_missing' USING ERRCODE = '42704'; END $$; "
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON note "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    with pytest.raises(StatementFailed):
        async with manager.lease("acme") as connection:
            await connection.execute("INSERT INTO note VALUES (1)")
    assert await notes(manager) == []


async def test_the_borrowers_own_error_wins_over_a_lost_connection(
    manager: TenantPoolManager, acme: TenantState, database: Database
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with manager.lease("acme") as connection:
            await terminate(database, connection)
            raise ZeroDivisionError
    assert await notes(manager) == []


async def terminate(database: Database, connection: asyncpg.Connection) -> None:
    pid = connection.get_server_pid()
    async with database.connected() as admin:
        await admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)


async def test_a_lease_cut_by_a_drain_is_lost(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    pool = pool_of(manager, "acme")
    with pytest.raises(LeaseLost):
        async with manager.lease("acme"):
            assert (await pool.drain(0)).cut == 1
    assert acme.recorder.connections_acquired == acme.recorder.connections_released


async def test_a_dead_idle_connection_is_replaced_unseen(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    pool = pool_of(manager, "acme")
    [idle] = pool.connections.idle
    # As if the news of its end had not arrived yet.
    idle.raw._transport.abort()  # type: ignore[attr-defined]
    assert await notes(manager) == []
    assert acme.recorder.connections_opened == 2


async def test_a_statement_still_running_at_the_end_closes_the_connection(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    with pytest.raises(LeaseLost):
        async with manager.lease("acme") as connection:
            left = asyncio.create_task(connection.execute("SELECT pg_sleep(30)"))
            await asyncio.sleep(0)
    await finished([left])
    assert await notes(manager) == []


async def test_a_lease_cancelled_at_any_await_leaves_no_trace(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async def work() -> None:
        async with manager.lease("acme") as connection:
            await connection.execute("SELECT 1")

    pool = pool_of(manager, "acme")
    budget = manager.servers["local"].budget
    for awaits in range(15):
        task = asyncio.create_task(work())
        for _ in range(awaits):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert acme.leased == acme.waiting == 0
        assert acme.recorder.connections_acquired == acme.recorder.connections_released
        assert await notes(manager) == []
        await eventually(lambda: budget.used == pool.metrics.total_connections == 1)


async def test_a_lease_without_any_working_connection_times_out(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    async with manager.lease("acme"):
        with pytest.raises(PoolTimeout):
            async with manager.lease("acme", timeout=0.05):
                pass


async def test_a_connection_whose_statements_were_deallocated_is_not_lent_again(
    manager: TenantPoolManager,
) -> None:
    state = await provisioned(manager, "acme")
    with pytest.raises(asyncpg.InvalidSQLStatementNameError):
        async with manager.lease("acme") as connection:
            await connection.fetch("select 1")
            await connection.execute("deallocate all")
            await connection.fetch("select 1")
    async with manager.lease("acme") as connection:
        assert await connection.fetchval("select 1") == 1
    assert state.recorder.connections_opened == 2


async def test_a_shared_lease_that_deallocates_all_commits_nothing_and_hurts_nobody(
    manager: TenantPoolManager, database: Database
) -> None:
    await provisioned(manager, "small", PoolStrategy.SHARED)
    await provisioned(manager, "other", PoolStrategy.SHARED)
    async with database.connected() as admin:
        await admin.execute(
            "CREATE TABLE everybody (id int); GRANT ALL ON everybody TO poolkeeper_shared"
        )
        with pytest.raises(StatementFailed) as raised:
            async with manager.lease("small") as connection:
                await connection.execute("INSERT INTO everybody VALUES (1)")
                await connection.execute("DEALLOCATE ALL")
        assert raised.value.sqlstate == "26000"
        assert await admin.fetchval("SELECT count(*) FROM everybody") == 0
    async with manager.lease("other") as connection:
        assert await connection.fetchval("SELECT 1") == 1
    pool = pool_of(manager, "shared@local")
    assert pool.recorder.connections_opened == 2


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_tenant_may_deallocate_all_in_a_pool_of_its_own(
    manager: TenantPoolManager, acme: TenantState, *, transaction: bool
) -> None:
    async with manager.lease("acme", transaction=transaction) as connection:
        await connection.execute("INSERT INTO note VALUES (1)")
        await connection.execute("DEALLOCATE ALL")
    async with manager.lease("acme") as connection:
        await connection.execute("INSERT INTO note VALUES (2)")
    assert acme.recorder.connections_acquired == acme.recorder.connections_released


async def test_a_role_that_made_read_only_its_default_can_still_write(
    manager: TenantPoolManager,
) -> None:
    await provisioned(manager, "acme")
    async with manager.lease("acme") as connection:
        await connection.execute("alter role current_user set default_transaction_read_only = on")
    pool = pool_of(manager, "acme")
    pool.recycle()
    async with manager.lease("acme") as connection:
        await connection.execute("create table written (id int)")


async def test_a_refused_commit_quotes_no_values(
    manager: TenantPoolManager, acme: TenantState
) -> None:
    with pytest.raises(StatementFailed) as caught:
        async with manager.lease("acme") as connection:
            await connection.execute(
                "CREATE TABLE person (name text UNIQUE DEFERRABLE INITIALLY DEFERRED);"
                " INSERT INTO person VALUES ('Ada'), ('Ada')"
            )
    assert "duplicate key" in caught.value.detail
    assert "Ada" not in caught.value.detail
    assert caught.value.sqlstate == "23505"
