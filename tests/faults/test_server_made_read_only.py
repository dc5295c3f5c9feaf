"""A provider makes the server read-only, as while a disk is full: no lease writes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.domain.errors import ServerReadOnly
from tests.fixtures.app import Api, ok, problem
from tests.fixtures.postgres import Database

_SETTING = "default_transaction_read_only"
LOCKS = pytest.mark.parametrize(
    ("lock", "unlock"),
    [
        (f"ALTER DATABASE {{}} SET {_SETTING} = on", f"ALTER DATABASE {{}} RESET {_SETTING}"),
        (f"ALTER SYSTEM SET {_SETTING} = on", f"ALTER SYSTEM RESET {_SETTING}"),
        (f"ALTER ROLE ALL SET {_SETTING} = on", f"ALTER ROLE ALL RESET {_SETTING}"),
        (f"ALTER ROLE postgres SET {_SETTING} = on", f"ALTER ROLE postgres RESET {_SETTING}"),
    ],
    ids=["database", "system", "all roles", "the admin's role"],
)
_WRITES = "insert into notes values (1)"


@asynccontextmanager
async def locked(api: Api, server: Database, lock: str, unlock: str) -> AsyncIterator[None]:
    """The server is read-only for a block, and the service has noticed both changes."""
    database = api.service.manager.servers["local"].admins.login.database
    async with server.connected() as hoster:
        await hoster.execute(f"SET {_SETTING} = off")
        await hoster.execute(lock.format(database))
        try:
            await hoster.fetchval("SELECT pg_reload_conf()")
            await noticed(api, read_only=True)
            yield
        finally:
            await hoster.execute(unlock.format(database))
            await hoster.fetchval("SELECT pg_reload_conf()")
    await noticed(api, read_only=False)


async def noticed(api: Api, *, read_only: bool) -> None:
    server = api.service.manager.servers["local"]
    for _ in range(200):
        await server.refresh()
        if server.limits is not None and server.limits.read_only is read_only:
            return
    raise AssertionError(server.limits)


async def shown(api: Api) -> dict[str, Any]:
    """The server as a user sees it: the view, readiness, the metric."""
    checks = ok(await api.client.get("/readyz"))["checks"]
    [servers] = [check for check in checks if check["name"] == "servers"]
    metrics = (await api.client.get("/metrics")).text
    [sample] = [one for one in metrics.splitlines() if one.startswith("poolkeeper_server_read_o")]
    return {
        "read_only": ok(await api.client.get("/v1/servers/local"))["read_only"],
        "ok": servers["ok"],
        "told": "Read-only (default_transaction_read_only is on): local." in servers["detail"],
        "metric": float(sample.split()[-1]),
    }


@LOCKS
async def test_no_lease_writes_through_it_and_reads_go_on(
    api: Api, postgres_server: Database, lock: str, unlock: str
) -> None:
    urls = [await api.tenant("schema", "per_tenant"), await api.tenant("own", "per_database")]
    for url in urls:
        ok(await api.query(url, "create table notes (n int)", read_only=False))
    ok(await api.client.put("/v1/tenants/later", json={"strategy": "per_tenant"}), 201)
    before = {"read_only": False, "ok": True, "told": False, "metric": 0.0}
    assert await shown(api) == before
    async with locked(api, postgres_server, lock, unlock):
        for url in urls:
            refused = problem(
                await api.query(url, _WRITES, read_only=False), 503, "server-read-only"
            )
            assert "default_transaction_read_only" in refused["detail"]
            for read_only in (True, False):
                sql = "select count(*) from notes"
                assert await api.value(url, sql, read_only=read_only) == 0
        assert await shown(api) == {"read_only": True, "ok": False, "told": True, "metric": 1.0}
        problem(await api.client.post("/v1/tenants/later/provision"), 503, "server-read-only")
        with pytest.raises(ServerReadOnly):
            async with api.service.manager.lease("schema", transaction=False) as connection:
                await connection.execute(_WRITES)
    assert await shown(api) == before
    for url in urls:
        ok(await api.query(url, _WRITES, read_only=False))
        assert await api.value(url, "select count(*) from notes") == 1


async def test_shared_tenants_are_held_to_it_too(
    api: Api, postgres_server: Database, database: Database
) -> None:
    url = await api.tenant("one", "shared")
    async with database.connected() as admin:
        await admin.execute("CREATE TABLE notes (n int); GRANT ALL ON notes TO poolkeeper_shared")
    async with locked(
        api,
        postgres_server,
        f"ALTER DATABASE {{}} SET {_SETTING} = on",
        f"ALTER DATABASE {{}} RESET {_SETTING}",
    ):
        problem(await api.query(url, _WRITES, read_only=False), 503, "server-read-only")
    ok(await api.query(url, _WRITES, read_only=False))


@pytest.mark.parametrize("strategy", ["per_tenant", "per_database"])
async def test_what_a_tenant_sets_for_itself_is_not_the_hosters(api: Api, strategy: str) -> None:
    url = await api.tenant("acme", strategy)
    ok(await api.query(url, "create table notes (n int)", read_only=False))
    own = f"alter role current_user set {_SETTING} = on"
    ok(await api.query(url, own, read_only=False))
    if strategy == "per_database":
        own = f"alter database tenant_acme set {_SETTING} = on"
        ok(await api.query(url, own, read_only=False))
    ok(await api.client.post("/v1/tenants/acme/pool/recycle"))
    await noticed(api, read_only=False)
    ok(await api.query(url, _WRITES, read_only=False))
