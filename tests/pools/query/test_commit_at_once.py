"""A single statement of `POST /sql`: it is committed before its result is read."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from app.domain.errors import StatementFailed
from app.pools import session_reset
from app.pools.manager import TenantPoolManager
from app.pools.query.runner import Query
from app.pools.query.text_statement import TextStatement
from tests.fixtures.pools import OF_ONE, finished, manager_on, pool_of, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

LATER = "create table later (id int unique deferrable initially deferred)"
# Its commit fails as a failed check of the context does.
DIVIDES_AT_COMMIT = "declare c cursor with hold for select 1 / (random() * 0)::int"
FAILING_RESET = "CLOSE ALL; SELECT 1/0"
# Seconds. A million rows take long on a busy machine.
PATIENCE = 300


@pytest.fixture
async def manager(database: Database, scrub_roles: None) -> AsyncIterator[TenantPoolManager]:
    """A tenant whose pool has one connection, so that the next statement gets the same one."""
    async with manager_on(database, configs=OF_ONE) as manager:
        await provisioned(manager, "acme")
        async with manager.lease("acme") as connection:
            await connection.execute("create table note (id int)")
            await connection.execute(LATER)
        yield manager


async def tell(manager: TenantPoolManager, sql: str) -> list[list[str]]:
    """The rows of a statement."""
    statement = TextStatement(sql, (), as_arrays=True, raw_text=True, is_alone=True)
    query = Query([statement], timeout=PATIENCE)
    assert query.ends_at_once(read_only=False)
    async with manager.lease("acme", statement_timeout=PATIENCE, work=query) as connection:
        [result] = await query.run(connection)
    rows: list[list[str]] = json.loads(b"[%b]" % b",".join(result.rows))
    return rows


async def count(manager: TenantPoolManager, table: str) -> int:
    async with manager.lease("acme") as connection:
        return int(await connection.fetchval(f"select count(*) from {table}"))


@pytest.mark.parametrize("size", [1_000_000, 100_000_000])
async def test_what_is_too_large_and_fails_at_its_commit_is_not_said_to_be_stored(
    manager: TenantPoolManager, size: int
) -> None:
    with pytest.raises(StatementFailed) as failed:
        await tell(
            manager,
            f"insert into later select 1 from generate_series(1, 9) returning repeat('x', {size})",
        )
    assert await count(manager, "later") == 0
    assert failed.value.sqlstate == "54000"
    assert (failed.value.hint or "").startswith("Nothing was changed.")


async def test_what_fits_into_a_response_is_not_too_large_on_its_way(
    manager: TenantPoolManager,
) -> None:
    rows = await tell(manager, "select 1 from generate_series(1, 1250000)")
    assert len(rows) == 1_250_000


async def test_a_session_that_cannot_be_reset_does_not_hide_that_the_work_is_stored(
    manager: TenantPoolManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "insert into note values (1) returning pg_backend_pid()"
    with monkeypatch.context() as patched:
        patched.setattr(session_reset, "RESET", FAILING_RESET)
        before = await tell(manager, sql)
    assert await count(manager, "note") == 1
    assert await tell(manager, sql) != before


async def test_an_error_of_a_commit_is_the_same_after_a_wait(
    manager: TenantPoolManager,
) -> None:
    pool = pool_of(manager, "acme")
    async with manager.lease("acme", statement_timeout=30):
        telling = asyncio.create_task(tell(manager, DIVIDES_AT_COMMIT), name="tell")
        await eventually(lambda: list(pool.waiters))
    [failed] = await finished([telling])
    assert isinstance(failed, StatementFailed)
    assert failed.sqlstate == "22012"
