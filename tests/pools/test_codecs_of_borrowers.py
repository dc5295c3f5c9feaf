"""A borrower's choice of how values look: the next borrower sees none of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from tests.fixtures.pools import account, bench_on, manager_on, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

Change = Callable[[asyncpg.Connection], Awaitable[object]]

_MINE = "mine"


def _changed(*_: object) -> str:
    return _MINE


def _codec(name: str, *, schema: str = "pg_catalog", format: str = "text") -> Change:  # noqa: A002
    def change(connection: asyncpg.Connection) -> Awaitable[object]:
        return connection.set_type_codec(
            name,
            schema=schema,
            format=format,
            encoder=_changed,
            decoder=_changed,
        )

    return change


def _alias(name: str, codec: str) -> Change:
    def change(connection: asyncpg.Connection) -> Awaitable[object]:
        return connection.set_builtin_type_codec(name, schema="acme", codec_name=codec)

    return change


# What a borrower changes, and a value that it then sees differently.
CHANGES: dict[str, tuple[Change, str]] = {
    "a number as text": (_codec("numeric"), "SELECT 1.50::numeric"),
    "a number in binary": (_codec("int8", format="binary"), "SELECT 7::int8"),
    "a moment as a tuple": (
        _codec("timestamptz", format="tuple"),
        "SELECT '2026-11-28 12:00+00'::timestamptz",
    ),
    "json": (_codec("json"), """SELECT '{"a": 1}'::json"""),
    "elements of an array": (_codec("numeric"), "SELECT ARRAY[1.50::numeric]"),
    "an own enumeration": (_codec("colour", schema="acme"), "SELECT 'red'::acme.colour"),
    "an own composite": (
        _codec("pair", schema="acme", format="tuple"),
        "SELECT ROW(1, 'x')::acme.pair",
    ),
    "part of a composite": (_codec("int4", format="binary"), "SELECT ROW(1, 'x')::acme.pair"),
    "an alias": (_alias("colour", "bytea"), "SELECT 'red'::acme.colour"),
}


@pytest.fixture(params=[PoolStrategy.SHARED, PoolStrategy.PER_TENANT])
async def manager(
    database: Database, scrub_roles: None, request: pytest.FixtureRequest
) -> AsyncIterator[TenantPoolManager]:
    """A pool of one connection for `acme`, shared or its own."""
    configs = {
        PoolStrategy.SHARED: PoolConfig.shared(max_connections=1),
        PoolStrategy.PER_TENANT: PoolConfig.per_tenant(pool_size=1),
    }
    async with manager_on(database, configs=configs) as manager:
        await provisioned(manager, "acme", request.param)
        async with database.connected() as admin:
            await admin.execute(
                "CREATE SCHEMA IF NOT EXISTS acme; GRANT USAGE ON SCHEMA acme TO PUBLIC;"
                "CREATE TYPE acme.colour AS ENUM ('red', 'blue');"
                "CREATE TYPE acme.pair AS (number int4, word text)"
            )
        yield manager


async def seen(manager: TenantPoolManager, look: str) -> tuple[type, object, int]:
    """A value and its back-end, as a borrower who changes nothing sees them."""
    async with manager.lease("acme") as connection:
        value = await connection.fetchval(look)
        return type(value), value, connection.get_server_pid()


async def test_no_codec_is_left(manager: TenantPoolManager) -> None:
    for what, (change, look) in CHANGES.items():
        before = await seen(manager, look)
        async with manager.lease("acme") as connection:
            await change(connection)
            changed = await connection.fetchval(look)
        assert (type(changed), changed) != before[:2], what
        assert await seen(manager, look) == before, what


async def test_no_codec_is_left_by_a_borrower_who_fails(manager: TenantPoolManager) -> None:
    before = await seen(manager, "SELECT 1.50::numeric")

    async def fail() -> None:
        async with manager.lease("acme") as connection:
            await _codec("numeric")(connection)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await seen(manager, "SELECT 1.50::numeric") == before


async def test_a_default_that_was_reset_is_back(manager: TenantPoolManager) -> None:
    before = await seen(manager, "SELECT 'red'::acme.colour")
    async with manager.lease("acme") as connection:
        await connection.reset_type_codec("colour", schema="acme")
    assert await seen(manager, "SELECT 'red'::acme.colour") == before


async def test_a_codec_that_was_refused_is_not_left(manager: TenantPoolManager) -> None:
    before = await seen(manager, "SELECT 'x'::text")
    async with manager.lease("acme") as connection:
        with pytest.raises(asyncpg.InterfaceError):
            await _codec("text", format="tuple")(connection)
    assert await seen(manager, "SELECT 'x'::text") == before


async def test_a_codec_is_not_left_to_a_borrower_who_waits(manager: TenantPoolManager) -> None:
    before = await seen(manager, "SELECT 1.50::numeric")
    async with manager.lease("acme") as connection:
        await _codec("numeric")(connection)
        waiting = asyncio.create_task(seen(manager, "SELECT 1.50::numeric"), name="next")
        await eventually(lambda: manager.tenants.state("acme").waiting == 1)
    assert await waiting == before


async def test_a_codec_stays_while_its_borrower_works(manager: TenantPoolManager) -> None:
    async with manager.lease("acme") as connection:
        await _codec("numeric")(connection)
        for _ in range(2):
            assert await connection.fetchval("SELECT 1.50::numeric") == _MINE


async def test_a_listener_of_the_end_is_not_left_and_ours_is(database: Database) -> None:
    heard: list[object] = []
    async with bench_on(database) as bench:
        pool, owner = bench.pool(max_size=1), account()
        connection = await pool.acquire(owner, 5)
        connection.attach_proxy().add_termination_listener(heard.append)
        connection.detach_proxy()
        pool.release(connection, reusable=True)
        async with database.connected() as admin:
            await admin.execute("SELECT pg_terminate_backend($1, 5000)", connection.pid)
        await eventually(lambda: pool.recorder.connections_lost == 1)
        assert heard == []
