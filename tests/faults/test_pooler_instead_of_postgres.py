"""A declared server, or the catalog's, is a PgBouncer: it is refused in a sentence."""

from pathlib import Path

import pytest

from app.catalog.leadership_lock import Leadership
from app.catalog.migrate import migrate
from app.domain.errors import CatalogUnavailable, ServerUnavailable
from app.domain.leadership import Instance
from app.wire import NO_TIMEOUTS
from tests.fixtures.app import ok, serving
from tests.fixtures.catalog import address_of
from tests.fixtures.pgbouncer import pgbouncer_before
from tests.fixtures.pools import started_server
from tests.fixtures.postgres import Database

# The settings of our logins: of pools, admins and the catalog.
_OURS = (
    "search_path, role, client_connection_check_interval, default_transaction_read_only,"
    " exit_on_error, local_preload_libraries, row_security, app.tenant_id,"
    " tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, poolkeeper.session,"
    f" poolkeeper.lease, {', '.join(NO_TIMEOUTS)}"
)
POOLERS = pytest.mark.parametrize(
    ("mode", "ignored", "says"),
    [
        ("session", "", "refuses settings"),
        ("transaction", "", "refuses settings"),
        ("session", _OURS, "is not Postgres itself but a pooler"),
        ("transaction", _OURS, "is not Postgres itself but a pooler"),
        ("statement", _OURS, "is not Postgres itself but a pooler"),
    ],
)


@POOLERS
async def test_a_declared_server_is_refused(
    database: Database, enterable_path: Path, mode: str, ignored: str, says: str
) -> None:
    async with (
        pgbouncer_before(database, enterable_path, mode=mode, ignored=ignored) as pooler,
        started_server(pooler) as server,
    ):
        assert not server.is_available
        assert server.last_error is not None
        assert says in server.last_error
        assert "the Postgres server behind it" in server.last_error
        with pytest.raises(ServerUnavailable, match=says):
            async with server.admin():
                pass


@POOLERS
async def test_a_catalog_is_refused(
    catalog_database: Database, enterable_path: Path, mode: str, ignored: str, says: str
) -> None:
    async with pgbouncer_before(
        catalog_database, enterable_path, mode=mode, ignored=ignored
    ) as pooler:
        with pytest.raises(CatalogUnavailable, match=says):
            await migrate(address_of(pooler))
        with pytest.raises(CatalogUnavailable, match=says):
            await Leadership(address_of(pooler), Instance(id="a", version="1")).try_lock()


async def test_the_reason_is_shown_to_users(
    database: Database, catalog_database: Database, enterable_path: Path, tmp_path: Path
) -> None:
    async with (
        pgbouncer_before(database, enterable_path, mode="transaction", ignored=_OURS) as pooler,
        serving(pooler, catalog_database, tmp_path) as api,
    ):
        view = ok(await api.client.get("/v1/servers/local"))
        assert view["state"] == "unavailable"
        assert "a pooler such as PgBouncer" in view["last_error"]
        ok(await api.client.put("/v1/tenants/acme", json={"strategy": "per_tenant"}), 201)
        response = await api.client.post("/v1/tenants/acme/provision")
        assert response.status_code == 503
        assert "a pooler such as PgBouncer" in response.json()["detail"]


async def test_postgres_itself_is_taken(database: Database) -> None:
    async with started_server(database) as server:
        assert server.is_available
        async with server.admin() as connection:
            assert await connection.fetchval("select pg_backend_pid()") > 0
