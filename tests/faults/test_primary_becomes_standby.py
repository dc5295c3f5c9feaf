"""The primary comes back as a standby: it is recognized, left, and used again when promoted."""

import asyncio
from pathlib import Path

import pytest

from app.domain.errors import ReadOnly, ServerUnavailable
from app.embedded import EmbeddedPostgres
from app.pools.manager import TenantPoolManager
from app.pools.servers.server import Server
from tests.fixtures.pools import manager_on, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import restarted, superuser_of
from tests.fixtures.queries import run_query
from tests.fixtures.waiting import eventually
from tests.node.site import Site, waits


async def replicable(postgres: EmbeddedPostgres) -> Database:
    """A server that writes what a standby needs."""
    database = await superuser_of(postgres)
    async with database.connected() as connection:
        await connection.execute("alter system set wal_level = 'replica'")
    await restarted(postgres)
    return database


async def demote(postgres: EmbeddedPostgres) -> None:
    """Restart a server as a hot standby without a primary."""
    assert postgres._cluster is not None
    (postgres._cluster.directory / "standby.signal").touch(mode=0o666)
    await restarted(postgres)


async def promote(database: Database) -> None:
    """Make a standby the primary again."""
    async with database.connected() as connection:
        assert await connection.fetchval("select pg_promote()")


async def write(manager: TenantPoolManager) -> None:
    """Write something as the tenant."""
    async with manager.lease("acme") as connection:
        await connection.execute("create table if not exists written (at timestamptz)")


async def test_a_demoted_server_is_left_until_it_is_promoted(
    private_postgres: EmbeddedPostgres,
) -> None:
    database = await replicable(private_postgres)
    async with manager_on(database) as manager:
        await provisioned(manager, "acme")
        await write(manager)
        await demote(private_postgres)
        server = manager.servers["local"]
        await eventually(lambda: refused(manager))
        await eventually(lambda: "standby" in str(server.last_error))
        await promote(database)
        await eventually(lambda: server.is_available)
        await write(manager)


async def refused(manager: TenantPoolManager) -> bool:
    """Whether a lease is refused because of the server."""
    try:
        await write(manager)
    except ServerUnavailable:
        return True
    return False


async def write_in_vain(manager: TenantPoolManager, *, read_only: bool) -> None:
    """Write where writing fails, because of the lease itself or for another reason."""
    async with manager.lease("acme", read_only=read_only) as connection:
        await connection.execute("set transaction read only")
        await run_query(connection, "create table t (i int)", [], max_rows=1, timeout=5)


async def test_a_write_refused_as_read_only_makes_the_server_doubted(
    private_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubted: list[str] = []
    database = await superuser_of(private_postgres)
    async with manager_on(database) as manager:
        await provisioned(manager, "acme")
        monkeypatch.setattr(Server, "recheck", lambda server: doubted.append(server.name))
        for read_only in (False, True):
            with pytest.raises(ReadOnly):
                await write_in_vain(manager, read_only=read_only)
    assert doubted == ["local"]


async def test_a_node_serves_nobody_from_a_standby(
    private_postgres: EmbeddedPostgres, enterable_path: Path
) -> None:
    database = await replicable(private_postgres)
    site = Site.beside(database, enterable_path / "node")
    await site.make_roles("acme")
    await demote(private_postgres)

    async def ask_whether_read_only() -> object:
        async with site.client("acme") as client:
            return await (await client.execute("SHOW transaction_read_only")).fetchone()

    async with site.started(site.configuration(site.entry("acme"))) as engine:
        await engine.open("acme")
        asking = asyncio.create_task(ask_whether_read_only(), name="an application")
        await eventually(lambda: waits(engine, "acme"))
        await eventually(lambda: "administrator command" in log_of(site))
        await promote(database)
        assert await asking == ("off",)


def log_of(site: Site) -> str:
    return (site.directory / "pgbouncer.log").read_text()
