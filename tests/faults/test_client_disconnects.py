"""A client leaves before its answer: its statement ends, and what must not end goes on."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest

from app.pools.tenant_state import TenantState
from tests.fixtures.app import Api, ApiWith, ok
from tests.fixtures.listening import Address, Client, connected, listening
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

SLEEP = {"sql": "select pg_sleep(60)"}
# Statements and commits that take as long as a test holds this lock.
WAIT = "pg_advisory_xact_lock(42)"
WAITING_FUNCTION = f"""
create function wait() returns trigger language plpgsql as
$$ begin perform {WAIT}; return null; end $$
"""
WAITING_COMMIT = """
create constraint trigger wait after insert on note deferrable initially deferred
for each row execute function wait()
"""
Leave = Callable[[Client], None]


def close(client: Client) -> None:
    client.writer.close()


def half_close(client: Client) -> None:
    client.writer.write_eof()


@pytest.fixture
async def api(api_with: ApiWith) -> AsyncIterator[Api]:
    """The application; a per_tenant pool has one connection."""
    async with api_with(per_tenant_pool_size=1) as api:
        yield api


@pytest.fixture
async def address(api: Api) -> AsyncIterator[Address]:
    """The address where it answers."""
    async with listening(api.app) as address:
        yield address


@pytest.fixture
async def account(api: Api) -> TenantState:
    """A provisioned tenant."""
    await api.tenant("acme")
    return api.service.manager.tenants.state("acme")


async def sleeping(database: Database) -> int:
    async with database.connected() as admin:
        return int(
            await admin.fetchval(
                "select count(*) from pg_stat_activity"
                " where wait_event = 'PgSleep' and datname = current_database()"
            )
        )


async def sleeps(database: Database) -> bool:
    return await sleeping(database) == 1


async def sleeps_no_more(database: Database) -> bool:
    return await sleeping(database) == 0


@asynccontextmanager
async def lock_held(database: Database) -> AsyncIterator[None]:
    """What uses `WAIT` waits for the end of the block."""
    async with database.connected() as admin, admin.transaction():
        await admin.execute(f"select {WAIT}")
        yield


async def waits(database: Database) -> bool:
    """Whether somebody does."""
    async with database.connected() as admin:
        return bool(
            await admin.fetchval(
                "select count(*) from pg_locks where locktype = 'advisory' and not granted"
                " and database = (select oid from pg_database where datname = current_database())"
            )
        )


def has_abandoned(api: Api, count: int) -> bool:
    return bool(api.app.state.abandoned == count)


@pytest.mark.parametrize("leave", [close, half_close, Client.reset])
async def test_its_statement_ends_and_the_next_is_served(
    api: Api, address: Address, account: TenantState, database: Database, leave: Leave
) -> None:
    for _ in range(2):
        async with connected(address) as client:
            client.ask("POST", "/v1/tenants/acme/query", SLEEP)
            await eventually(lambda: sleeps(database))
            leave(client)
            await eventually(lambda: sleeps_no_more(database))
    assert await api.value("/v1/tenants/acme", "select 1") == 1
    await eventually(partial(has_abandoned, api, 2))
    assert account.leased == account.waiting == 0
    await eventually(lambda: api.service.manager.servers["local"].budget.used == 1)


async def test_it_no_longer_waits_for_a_connection(
    api: Api, address: Address, account: TenantState
) -> None:
    async with api.service.manager.lease("acme"):
        async with connected(address) as client:
            client.ask("POST", "/v1/tenants/acme/query", SLEEP)
            await eventually(lambda: account.waiting == 1)
        await eventually(lambda: account.waiting == 0)
    assert await api.value("/v1/tenants/acme", "select 1") == 1


async def test_its_write_is_undone_and_its_key_may_be_used_again(
    api: Api, address: Address, account: TenantState, database: Database
) -> None:
    url = "/v1/tenants/acme"
    ok(await api.query(url, "create table note (n int)", read_only=False))
    insert = {"sql": f"insert into note select 1 from {WAIT}", "read_only": False}
    async with lock_held(database), connected(address) as client:
        client.ask("POST", f"{url}/query", insert, Idempotency_Key="once")
        await eventually(lambda: waits(database))
        close(client)
        await eventually(partial(has_abandoned, api, 1))
    for _ in range(2):
        again = await api.client.post(
            f"{url}/query", json=insert, headers={"Idempotency-Key": "once"}
        )
        assert ok(again)["row_count"] == 1
    assert await api.value(url, "select count(*) from note") == 1


async def test_a_commit_that_has_begun_runs_to_its_end(
    api: Api, address: Address, account: TenantState, database: Database
) -> None:
    url = "/v1/tenants/acme"
    for sql in ("create table note (n int)", WAITING_FUNCTION, WAITING_COMMIT):
        ok(await api.query(url, sql, read_only=False))
    insert = {"sql": "insert into note values (1)", "read_only": False}
    headers = {"Idempotency-Key": "once"}
    async with lock_held(database):
        async with connected(address) as client:
            client.ask("POST", f"{url}/query", insert, Idempotency_Key="once")
            await eventually(lambda: waits(database))
        again = await api.client.post(f"{url}/query", json=insert, headers=headers)
        assert again.status_code == 409
        assert await waits(database)

    async def is_replayed() -> bool:
        again = await api.client.post(f"{url}/query", json=insert, headers=headers)
        return again.status_code == 200 and "idempotency-replayed" in again.headers

    await eventually(is_replayed)
    assert await api.value(url, "select count(*) from note") == 1


async def test_a_change_that_has_begun_runs_to_its_end(
    api: Api, address: Address, database: Database
) -> None:
    ok(await api.client.put("/v1/tenants/acme", json={"strategy": "per_tenant"}), 201)

    async def waits() -> bool:
        async with database.connected() as looker:
            return bool(
                await looker.fetchval(
                    "select count(*) from pg_locks"
                    " where not granted and relation = 'pg_namespace'::regclass"
                )
            )

    async with database.connected() as admin, admin.transaction():
        await admin.execute("lock table pg_namespace in share row exclusive mode")
        async with connected(address) as client:
            client.ask("POST", "/v1/tenants/acme/provision")
            await eventually(waits)
        assert await waits()

    async def works() -> bool:
        return (await api.query("/v1/tenants/acme", "select 1")).is_success

    await eventually(works)


async def test_its_stream_ends(api: Api, address: Address) -> None:
    async with connected(address) as client:
        client.ask("GET", "/v1/stats/stream")
        await client.reader.readuntil(b"event: stats")
        assert api.service.streams.open == 1
    await eventually(lambda: api.service.streams.open == 0)


async def test_half_a_body_changes_nothing_and_is_no_error(
    api: Api, address: Address, account: TenantState, caplog: pytest.LogCaptureFixture
) -> None:
    for count, path in enumerate(("/query", "/pool/pause"), start=1):
        async with connected(address) as client:
            client.writer.write(
                f"POST /v1/tenants/acme{path} HTTP/1.1\r\nHost: localhost\r\n"
                "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
            )
            await client.writer.drain()
        await eventually(partial(has_abandoned, api, count))
    assert not [each for each in caplog.records if each.levelname == "ERROR"]
    assert await api.value("/v1/tenants/acme", "select 1") == 1
