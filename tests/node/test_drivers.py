"""Drivers work through a node, each with the settings in docs/nodes.md."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from app.node.process import version_of
from tests.fixtures.missing import missing
from tests.fixtures.nodes import RunningNode, running_node
from tests.fixtures.pgbouncer import installed_pgbouncer
from tests.fixtures.postgres import Database
from tests.fixtures.programs import PROGRAMS, printed
from tests.fixtures.served import served
from tests.fixtures.waiting import eventually

# Debian's, if it is installed.
PGJDBC = [str(path) for path in Path("/usr/share/java").glob("postgresql.jar")]

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("scrub_roles")]


@pytest.fixture
async def node(
    database: Database, catalog_database: Database, enterable_path: Path
) -> AsyncIterator[RunningNode]:
    """A node that admits the application of a tenant, acme."""
    async with (
        served(enterable_path, tenants_in=database, catalog_in=catalog_database) as service,
        running_node(enterable_path, service) as running,
    ):
        await running.tenant("acme")
        await eventually(lambda: running.admits("acme"))
        yield running


@pytest.fixture(params=["unprepared", "prepared"])
def prepares(request: pytest.FixtureRequest) -> bool:
    """Whether drivers prepare statements, as they do by default: since PgBouncer 1.21."""
    if request.param == "unprepared":
        return False
    if version_of(installed_pgbouncer()) < (1, 21):
        pytest.skip("PgBouncer prepares statements since 1.21.")
    return True


async def test_psql_works(node: RunningNode) -> None:
    program = shutil.which("psql")
    if program is None:
        missing("No psql: Debian's package `postgresql-client` is not installed.")
    sql = "create table fruits (name text); insert into fruits values ('apple') returning *"
    arguments = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", sql)
    assert await printed(program, node.dsn("acme"), *arguments) == "apple\n"


async def test_psycopg_works(node: RunningNode, *, prepares: bool) -> None:
    async with await psycopg.AsyncConnection.connect(
        node.dsn("acme"), prepare_threshold=5 if prepares else None
    ) as connection:
        async with connection.transaction():
            await connection.execute("create table fruits (id int primary key, name text)")
            await connection.execute("insert into fruits values (%s, %s)", (1, "apple"))
        with pytest.raises(psycopg.errors.UniqueViolation):
            await connection.execute("insert into fruits values (%s, %s)", (1, "pear"))
        await connection.rollback()
        for _ in range(10):  # it prepares a statement when it executes it for the fifth time
            found = await connection.execute("select current_user, * from fruits")
            assert await found.fetchall() == [("tenant_acme", 1, "apple")]
            await connection.commit()


async def test_asyncpg_works(node: RunningNode, *, prepares: bool) -> None:
    async with (
        asyncpg.create_pool(
            node.dsn("acme").replace("&connect_timeout=180", ""),
            min_size=2,
            max_size=2,
            timeout=180,
            statement_cache_size=100 if prepares else 0,
        ) as pool,
        pool.acquire() as connection,
    ):
        async with connection.transaction():
            await connection.execute("create table fruits (id int primary key, name text)")
            await connection.execute("insert into fruits values ($1, $2)", 1, "apple")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute("insert into fruits values ($1, $2)", 1, "pear")
        async with connection.transaction():
            rows = await connection.fetch("select current_user, * from fruits where id = $1", 1)
        assert [tuple(row) for row in rows] == [("tenant_acme", 1, "apple")]


async def test_prepared_statements_follow_their_clients_to_other_connections(
    node: RunningNode, *, prepares: bool
) -> None:
    if not prepares:
        pytest.skip("There are none.")

    async def work(number: int) -> None:
        connection = await asyncpg.connect(
            node.dsn("acme").replace("&connect_timeout=180", ""), timeout=180
        )
        for turn in range(60):
            # More than PgBouncer keeps per connection: it prepares them again.
            sql = f"select $1::int + {number * 60 + turn % 50} as sum, {number} as client"
            [found] = await connection.fetch(sql, turn)
            assert tuple(found) == (turn + number * 60 + turn % 50, number)
        await connection.close(timeout=180)

    # From more clients than there are connections.
    await asyncio.gather(*map(work, range(8)))


async def test_a_pause_mends_prepared_statements_whose_columns_a_migration_changed(
    node: RunningNode, *, prepares: bool
) -> None:
    if not prepares:
        pytest.skip("There are none.")
    dsn = node.dsn("acme").replace("&connect_timeout=180", "")
    connection = await asyncpg.connect(dsn, timeout=180)
    await connection.execute("create table fruits (name text)")
    assert await connection.fetch("select * from fruits") == []
    await connection.execute("alter table fruits add weight int")
    other = await asyncpg.connect(dsn, timeout=180)
    for _ in range(2):
        for each in (connection, other):
            with pytest.raises(asyncpg.InvalidCachedStatementError):
                await each.fetch("select * from fruits")
    client = node.services[0].client

    async def is_paused() -> bool:
        tenants = (await client.get(f"/v1/nodes/{node.name}/tenants")).raise_for_status().json()
        return [each["state"] for each in tenants["items"]] == ["paused"]

    (await client.post("/v1/tenants/acme/pool/pause")).raise_for_status()
    await eventually(is_paused)
    (await client.post("/v1/tenants/acme/pool/resume")).raise_for_status()
    assert await connection.fetch("select * from fruits") == []
    assert await other.fetch("select * from fruits") == []
    await connection.close(timeout=180)
    await other.close(timeout=180)


async def test_node_postgres_works(node: RunningNode, *, prepares: bool) -> None:
    program = shutil.which("node")
    if program is None or not (PROGRAMS / "node_modules" / "pg").is_dir():
        missing("The driver is not installed. Run: npm ci --prefix tests/drivers")
    url = node.dsn("acme").partition("?")[0]
    named = {"STATEMENT": "fruit"} if prepares else {}
    assert await printed(program, "node_pg.mjs", DATABASE_URL=url, **named) == "done\n"


async def test_pgjdbc_works(node: RunningNode, *, prepares: bool) -> None:
    program = shutil.which("java")
    if program is None or shutil.which("javac") is None:
        pytest.skip("No Java Development Kit.")
    if not PGJDBC:
        missing("No pgjdbc: Debian's package `libpostgresql-jdbc-java` is not installed.")
    url = f"jdbc:postgresql://127.0.0.1:{node.port}/acme?sslmode=disable"
    url += "" if prepares else "&prepareThreshold=0"
    login = ("acme.web", node.passwords["acme"])
    assert await printed(program, "-cp", *PGJDBC, "PgJdbc.java", url, *login) == "done\n"
