"""One tenant takes locks by the hundred: the others go on, and it is stopped and told why."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from httpx import Response

from app.domain.errors import TooManyLocks
from app.domain.lock_table import BackendSignal
from app.embedded import EmbeddedPostgres
from tests.fixtures.app import Api, ok, problem, serving
from tests.fixtures.postgres import Database, fresh_database
from tests.fixtures.private_postgres import restarted, superuser_of
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

_OTHERS = ("other-per-tenant", "other-per-database")
# Of some 550 that the table is planned for.
_MANY = 400

_ADVISORY = f"perform pg_advisory_lock(j) from generate_series(1, {_MANY}) j;"
_TABLES = f"for i in 1..{_MANY} loop execute format('create table t%s ()', i); end loop;"
_LARGE_OBJECTS = f"perform lo_unlink(lo_create(0)) from generate_series(1, {_MANY});"
# Until Postgres itself has no room left.
_ALL = (
    "declare i int := 0; begin loop begin"
    " perform pg_advisory_lock(j) from generate_series(i * 20 + 1, i * 20 + 20) j;"
    " exception when out_of_memory then {then}; end; i := i + 1; end loop;"
)
_HOLD = "perform pg_sleep(60);"
_HOLD_ON = "loop begin perform pg_sleep(60); exception when query_canceled then end; end loop;"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small_server(session_directory: Path) -> AsyncIterator[Database]:
    """A server whose lock table is planned for some 550 locks."""
    # Random order may interrupt the module: then there is a second server.
    directory = Path(tempfile.mkdtemp(prefix="few-locks-", dir=session_directory))
    server = EmbeddedPostgres(directory / "data", max_connections=30, durable=False)
    await server.start()
    try:
        async with (await superuser_of(server)).connected() as admin:
            await admin.execute("ALTER SYSTEM SET max_locks_per_transaction = 10")
        await restarted(server)
        yield await superuser_of(server)
    finally:
        await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(
    small_server: Database,
    postgres_server: Database,
    catalog_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Api]:
    """The service on that server, its catalog elsewhere, with two harmless tenants."""
    data_dir = tmp_path_factory.mktemp("data")
    async with (
        fresh_database(postgres_server, template=catalog_template) as catalog,
        serving(small_server, catalog, data_dir) as api,
    ):
        await api.tenant("other-per-tenant", "per_tenant")
        await api.tenant("other-per-database", "per_database")
        yield api


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(api: Api, request: pytest.FixtureRequest) -> str:
    """A tenant of this test alone; `per_tenant` unless the test says otherwise."""
    strategy = getattr(request, "param", "per_tenant")
    name = f"t{uuid4().hex[:8]}-{strategy.replace('_', '-')}"
    await api.tenant(name, strategy)
    return name


async def run(api: Api, tenant: str, body: str) -> Response:
    """Run *body* as the tenant, for a minute at most."""
    sql = f"do $$ {body} end $$" if body.startswith("declare") else f"do $$ begin {body} end $$"
    return await api.query(f"/v1/tenants/{tenant}", sql, read_only=False, timeout_seconds=30)


async def is_recorded(api: Api, tenant: str, *ended: str) -> bool:
    """Whether the audit trail has what was *ended* of the tenant, oldest first.

    A borrower may notice the end before the guard does.
    """
    await api.service.audit_outbox.flush()
    events = ok(await api.client.get("/v1/events", params={"tenant": tenant}))["items"]
    actions = ("pool.statement_cancelled", "pool.connection_terminated")
    found = [event for event in events if event["action"] in actions]
    for event in found:
        assert event["actor"] == "lock-guard"
        assert event["after"]["locks"] > 10
        assert "of the lock table of server local was used" in event["reason"]
    return [event["action"] for event in reversed(found)] == list(ended)


@asynccontextmanager
async def used_meanwhile(api: Api) -> AsyncIterator[list[Response]]:
    """Query as the other tenants again and again; returns the answers."""
    answers: list[Response] = []

    async def ask(tenant: str) -> None:
        while True:
            answers.append(await api.query(f"/v1/tenants/{tenant}", "select 1"))
            await asyncio.sleep(0.01)

    for name in _OTHERS:
        ok(await api.query(f"/v1/tenants/{name}", "select 1"))
    asking = [asyncio.create_task(ask(name), name=f"asks as {name}") for name in _OTHERS]
    try:
        yield answers
    finally:
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
    assert answers


@pytest.mark.parametrize(
    ("tenant", "locks"),
    [
        ("per_tenant", _ADVISORY),
        ("per_tenant", _TABLES),
        ("per_database", _LARGE_OBJECTS),
        ("shared", _ADVISORY),
        ("per_database", _ALL.format(then="exit")),
        ("per_tenant", _ALL.format(then="null")),
    ],
    ids=["advisory", "tables", "large objects", "shared", "until it is full", "again and again"],
    indirect=["tenant"],
)
async def test_the_largest_holders_statement_is_ended_and_others_go_on(
    api: Api, tenant: str, locks: str
) -> None:
    guard = api.service.lock_guards["local"]
    before = guard.ended[BackendSignal.CANCEL_STATEMENT]
    async with used_meanwhile(api) as answers:
        response = await run(api, tenant, f"{locks} {_HOLD}")
    why = problem(response, 422, "too-many-locks")
    assert "of the lock table of server local was used" in why["detail"]
    assert [each.status_code for each in answers] == [200] * len(answers)
    await eventually(lambda: is_recorded(api, tenant, "pool.statement_cancelled"))
    # The table is free again: logins and writes work, also those of the same tenant.
    await eventually(lambda: guard.utilization < 0.5, because="locks given back")
    for name in (tenant, *_OTHERS):
        ok(await run(api, name, "perform pg_advisory_xact_lock(1);"))
    sample = f'poolkeeper_lock_holders_ended_total{{ended="statement",server="local"}} {before + 1}'
    assert sample in (await api.client.get("/metrics")).text


async def test_one_that_ignores_that_loses_its_connection(api: Api, tenant: str) -> None:
    async with used_meanwhile(api) as answers:
        response = await run(api, tenant, f"{_ADVISORY} {_HOLD_ON}")
    problem(response, 422, "too-many-locks")
    assert [each.status_code for each in answers] == [200] * len(answers)
    both = "pool.statement_cancelled", "pool.connection_terminated"
    await eventually(lambda: is_recorded(api, tenant, *both))


async def test_a_borrower_that_sits_on_locks_loses_its_connection(api: Api, tenant: str) -> None:
    async def sit() -> None:
        async with api.service.manager.lease(tenant) as connection:
            await connection.execute(f"do $$ begin {_ADVISORY} end $$")
            await eventually(connection.is_closed)
            await connection.execute("select 1")

    with pytest.raises(TooManyLocks):
        await sit()
    await eventually(lambda: is_recorded(api, tenant, "pool.connection_terminated"))


async def test_connections_of_one_tenant_are_ended_until_there_is_room(
    api: Api, tenant: str
) -> None:
    part = "perform pg_advisory_lock({0}, j) from generate_series(1, 110) j; perform pg_sleep(4);"
    answers = await asyncio.gather(*(run(api, tenant, part.format(n)) for n in range(4)))
    statuses = sorted(response.status_code for response in answers)
    assert statuses[-1] == 422, "together they took too many"
    assert statuses[0] == 200, "no more were ended than needed"


async def test_no_backend_is_terminated_for_locks_of_others(
    api: Api, small_server: Database, tenant: str
) -> None:
    guard = api.service.lock_guards["local"]
    ended = dict(guard.ended)
    async with small_server.connected() as other:
        await other.execute(f"do $$ begin {_ADVISORY} end $$")
        await eventually(lambda: guard.utilization > 0.6, because="the guard saw it")
        ok(await run(api, tenant, "create table t (); perform pg_sleep(1);"))
        assert await other.fetchval("select 1") == 1
    assert guard.ended == ended
