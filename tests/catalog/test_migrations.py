"""The migrations make exactly the tables that the code expects, and can be undone."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from app.catalog.catalog import Catalog
from app.catalog.database import LOCK_CLASS, CatalogAddress
from app.catalog.migrate import _MIGRATION_LOCK, migrate
from app.catalog.tables import metadata
from app.domain.errors import CatalogUnavailable, Conflict
from tests.fixtures.catalog import address_of, downgrade
from tests.fixtures.postgres import Database, fresh_database

TABLES = {
    "advisor",
    "alembic_version",
    "application_credentials",
    "credentials",
    "events",
    "instances",
    "leadership",
    "node_liabilities",
    "nodes",
    "pools",
    "recommendations",
    "samples",
    "samples_by_day",
    "samples_by_hour",
    "samples_by_minute",
    "tenants",
}

# What alembic cannot compare: constraints with their conditions, and indexes with their options.
SHAPE = """
SELECT pg_get_constraintdef(oid), conname FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT indexdef, indexname FROM pg_indexes
WHERE schemaname = 'public' AND tablename <> 'alembic_version'
ORDER BY 1, 2
"""


async def tables_of(connection: asyncpg.Connection) -> set[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {name for [name] in rows}


async def test_up_down_and_up_again(database: Database) -> None:
    address = address_of(database)
    async with database.connected() as connection:
        await migrate(address)
        assert await tables_of(connection) == TABLES
        await migrate(address)
        await downgrade(address)
        assert await tables_of(connection) == {"alembic_version"}
        await migrate(address)
        assert await tables_of(connection) == TABLES


async def test_the_catalogs_database_is_closed_to_everyone_at_each_start(
    database: Database,
) -> None:
    address, name = address_of(database), database.database
    async with database.connected() as connection:
        for _ in range(2):
            await migrate(address)
            grantees = await connection.fetchval(
                """
                SELECT array_agg(grantee::int) FROM pg_database, aclexplode(datacl)
                WHERE datname = current_database()
                """
            )
            assert 0 not in grantees
            # As in a restored database.
            await connection.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO PUBLIC")


async def test_the_event_of_a_pause_names_who_paused_the_pool(database: Database) -> None:
    address = address_of(database)
    await migrate(address)
    await downgrade(address, revision="0005")
    async with database.connected() as connection:
        await connection.execute(
            """
            INSERT INTO pools (pool_id, min_size, max_size, warmup_size, paused)
            VALUES ('acme', 0, 5, 1, true), ('beta', 0, 5, 1, true), ('gamma', 0, 5, 1, false);
            INSERT INTO events (at, actor, action, pool)
            VALUES (now(), 'alice', 'pool.paused', 'acme'), (now(), 'ops', 'pool.paused', 'acme'),
                (now(), 'eve', 'pool.resumed', 'acme');
            """
        )
        await migrate(address)
        rows = await connection.fetch(
            "SELECT pool_id, paused_by, paused_at = updated_at FROM pools ORDER BY pool_id"
        )
        assert [tuple(row) for row in rows] == [
            ("acme", "ops", True),
            ("beta", "unknown", True),
            ("gamma", None, None),
        ]
        await downgrade(address, revision="0005")
        rows = await connection.fetch("SELECT paused FROM pools ORDER BY pool_id")
        assert [paused for [paused] in rows] == [True, True, False]


async def test_the_advisor_keeps_its_settings_and_placements_under_their_new_names(
    database: Database,
) -> None:
    address = address_of(database)
    await migrate(address)
    await downgrade(address, revision="0004")
    async with database.connected() as connection:
        await connection.execute(
            """
            INSERT INTO advisor (id, rule, mode, config) VALUES (1, 'demand', 'apply',
                '{"demand": {"most_growth": 3, "trial": {"most_ticks": 9}}, "hysteresis": {}}');
            INSERT INTO recommendations (id, pool_id, tenant, rule, action, current_size, new_size,
                reason_code, reason, max_size, total_connections, idle_connections,
                active_connections, waiting_requests, status, created_at, expires_at, kind, move)
            VALUES (gen_random_uuid(), 'shared@local', 'acme', 'tiering', 'stable', 5, 5,
                'hot_tenant', 'Busy.', 5, 0, 0, 0, 0, 'open', now(), now(), 'move', 'move_to_own')
            """
        )
        for _ in range(2):
            await migrate(address)
            config = await connection.fetchval("SELECT config FROM advisor")
            assert json.loads(config)["demand"] == {"max_growth": 3, "trial": {"max_ticks": 9}}
            rows = await connection.fetch("SELECT kind, placement FROM recommendations")
            assert [tuple(row) for row in rows] == [("placement", "own_pool")]
            await downgrade(address, revision="0004")
        config = await connection.fetchval("SELECT config FROM advisor")
        assert json.loads(config)["demand"] == {"most_growth": 3, "trial": {"most_ticks": 9}}
        rows = await connection.fetch("SELECT kind, move FROM recommendations")
        assert [tuple(row) for row in rows] == [("move", "move_to_own")]


async def test_old_polls_become_minutes_and_minutes_become_polls_again(database: Database) -> None:
    address = address_of(database)
    await migrate(address)
    await downgrade(address, revision="0002")
    polls = """
        INSERT INTO samples
        SELECT subject, timestamptz '2026-07-14 12:00Z' + second * interval '1 s',
            5, second / 30, 4, 1, counter, 0, NULL, second, NULL, NULL
        FROM (VALUES ('acme', 0, 100), ('acme', 30, 110), ('acme', 60, 3), ('acme', 90, 7),
            ('globex', 0, 50)) AS polled (subject, second, counter)
    """
    columns = "subject, extract(minute FROM at)::int, acquired"
    async with database.connected() as connection:
        await connection.execute(polls)
        await migrate(address)
        minutes = await connection.fetch(
            f"SELECT {columns}, polls, active_connections, wait_p99_ms FROM samples_by_minute"
            " ORDER BY subject, at"
        )
        assert [tuple(minute) for minute in minutes] == [
            ("acme", 0, 10, 2, 0.5, 30.0),
            ("acme", 1, 7, 2, 2.5, 90.0),
            ("globex", 0, 0, 1, 0.0, 0.0),
        ]
        await downgrade(address, revision="0002")
        samples = await connection.fetch(f"SELECT {columns} FROM samples ORDER BY subject, at")
        assert [tuple(sample) for sample in samples] == [
            ("acme", 0, 10),
            ("acme", 1, 17),
            ("globex", 0, 0),
        ]


async def test_alembic_finds_no_drift(catalog_address: CatalogAddress) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )

    engine = catalog_address.engine(timeout=10)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
    finally:
        await engine.dispose()


async def test_constraints_and_indexes_have_not_drifted_either(
    catalog_database: Database, postgres_server: Database
) -> None:
    async with fresh_database(postgres_server, template="template1") as believed:
        engine = address_of(believed).engine(timeout=10)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await engine.dispose()
        async with believed.connected() as one, catalog_database.connected() as other:
            assert await other.fetch(SHAPE) == await one.fetch(SHAPE)


async def test_of_several_who_start_at_once_one_migrates(database: Database) -> None:
    address = address_of(database)
    await asyncio.gather(*(migrate(address) for _ in range(4)))
    async with database.connected() as connection:
        assert await tables_of(connection) == TABLES


async def test_a_migration_that_fails_leaves_nothing_behind(database: Database) -> None:
    """Here the last table of all already exists."""
    async with database.connected() as connection:
        await connection.execute("CREATE TABLE samples ()")
        with pytest.raises(Exception, match="samples"):
            await migrate(address_of(database))
        assert await tables_of(connection) == {"samples"}


async def test_waiting_for_another_migration_has_an_end(database: Database) -> None:
    async with database.connected() as connection, connection.transaction():
        lock = "SELECT pg_advisory_xact_lock($1, $2)"
        await connection.execute(lock, LOCK_CLASS, _MIGRATION_LOCK)
        with pytest.raises(CatalogUnavailable):
            await migrate(address_of(database), deadline=0.3)
    await migrate(address_of(database))


async def test_a_migration_that_somebody_blocks_says_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a backup does that is still running."""
    monkeypatch.setattr("app.catalog.migrate._LOCK_TIMEOUT", "10ms")
    address = address_of(database)
    await migrate(address)
    await downgrade(address, revision="0008")
    async with database.connected() as backup, backup.transaction():
        await backup.execute("SELECT FROM leadership")
        with pytest.raises(CatalogUnavailable, match="used: another transaction, which is still"):
            await migrate(address)
    await migrate(address)


async def test_a_schema_from_the_future_is_refused(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with catalog_database.connected() as connection:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Conflict, match="9999"):
        await migrate(catalog_address)


async def test_a_server_that_is_away_cannot_be_migrated() -> None:
    closed = CatalogAddress(host="127.0.0.1", port=1, user="u", password="p", database="d")
    with pytest.raises(CatalogUnavailable):
        await migrate(closed)


def test_the_folder_alembic_does_not_hide_the_library() -> None:
    checkout = Path(__file__).parents[2]
    assert (checkout / "alembic" / "env.py").is_file()
    found = subprocess.run(
        [sys.executable, "-c", "import alembic.config; print(alembic.__file__)"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    assert checkout / "alembic" not in Path(found.strip()).parents


async def test_migrating_leaves_logging_alone(database: Database) -> None:
    before = (logging.root.level, logging.root.handlers[:], logging.root.manager.disable)
    await migrate(address_of(database))
    assert (logging.root.level, logging.root.handlers[:], logging.root.manager.disable) == before


async def test_a_migrated_catalog_is_empty(catalog: Catalog) -> None:
    assert await catalog.tenants.load() == ()
    assert await catalog.pools.load() == ()
    assert await catalog.audit_log.page() == ()
