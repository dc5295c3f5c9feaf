"""The catalog's tables cannot be used while an instance is active: it serves, and it recovers."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.catalog.database import CatalogAddress
from app.catalog.migrate import check_database, migrate
from app.domain.errors import CatalogUnavailable, CatalogUnusable
from tests.catalog.test_leadership_lock import FIRST, SECOND, begun, part_of, terminate
from tests.catalog.values import event
from tests.fixtures.app import Api, ok, problem
from tests.fixtures.catalog import address_of
from tests.fixtures.postgres import Database
from tests.fixtures.served import Serve, Served, served
from tests.fixtures.waiting import eventually

ROLE = "poolkeeper_catalog"
# What goes wrong, what mends it, what the cause is called, and whether leadership meets it.
FAULTS = {
    "search_path": (
        f"ALTER ROLE {ROLE} IN DATABASE {{}} SET search_path = nowhere",
        f"ALTER ROLE {ROLE} IN DATABASE {{}} RESET search_path",
        "does not exist, or is not in the search_path",
        False,
    ),
    "table renamed": (
        "ALTER TABLE tenants RENAME TO gone",
        "ALTER TABLE gone RENAME TO tenants",
        'relation "tenants" does not exist',
        False,
    ),
    "column renamed": (
        "ALTER TABLE tenants RENAME weight TO heft",
        "ALTER TABLE tenants RENAME heft TO weight",
        "weight",
        False,
    ),
    "rights revoked": (
        f"REVOKE SELECT, UPDATE ON tenants FROM {ROLE}",
        f"GRANT SELECT, UPDATE ON tenants TO {ROLE}",
        f"GRANT SELECT, UPDATE ON tenants TO {ROLE};",
        False,
    ),
    "rights on leadership revoked": (
        f"REVOKE ALL ON leadership FROM {ROLE}",
        f"GRANT ALL ON leadership TO {ROLE}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON leadership TO {ROLE};",
        True,
    ),
    "leadership renamed": (
        "ALTER TABLE leadership RENAME TO gone",
        "ALTER TABLE gone RENAME TO leadership",
        'relation "leadership" does not exist',
        True,
    ),
}


@asynccontextmanager
async def used_by_a_role(catalog: Database) -> AsyncIterator[Database]:
    """The catalog as a role has it that owns none of its tables, and is dropped at the end."""
    role = replace(catalog, user=ROLE, password="canary-catalog", superuser=None)
    async with catalog.connected() as admin:
        await admin.execute(
            f"""
            CREATE ROLE {ROLE} LOGIN PASSWORD '{role.password}';
            GRANT CONNECT ON DATABASE {catalog.database} TO {ROLE};
            GRANT USAGE ON SCHEMA public TO {ROLE};
            GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE};
            """
        )
    try:
        yield role
    finally:
        async with catalog.connected() as admin:
            await admin.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


async def shown(service: Served) -> dict[str, Any]:
    """The check of the catalog."""
    checks = ok(await service.client.get("/readyz"))["checks"]
    [catalog] = [check for check in checks if check["name"] == "catalog"]
    return dict(catalog)


async def changed(service: Served, body: dict[str, Any]) -> bool:
    """Whether a change of the tenant is stored."""
    return (await service.client.put("/v1/tenants/acme", json=body)).status_code == 200


def events_in(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.parametrize("fault", FAULTS)
async def test_it_serves_says_why_and_recovers(
    serve: Serve, catalog_database: Database, tmp_path: Path, fault: str
) -> None:
    breaks, mends, cause, is_leaderships = FAULTS[fault]
    async with (
        used_by_a_role(catalog_database) as role,
        serve(catalog_in=role, reconcile_interval_seconds=0.5) as service,
        catalog_database.connected() as admin,
    ):
        await service.tenant("acme")
        await admin.execute(breaks.format(catalog_database.database))
        await admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE usename = $1 AND application_name LIKE '%catalog'",
            ROLE,
        )

        async def is_noticed() -> bool:
            return not (await shown(service))["ok"]

        await eventually(is_noticed)
        assert cause in (await shown(service))["detail"]
        body = {"strategy": "per_tenant", "weight": 2}
        for _ in range(2):
            problem(
                await service.client.put("/v1/tenants/acme", json=body), 503, "catalog-unavailable"
            )
        assert await service.query("acme", "select 42") == 200
        log = tmp_path / "service.log"
        if is_leaderships:
            await eventually(partial(has_logged, log, "leadership not renewed"))
        assert await service.query("acme", "select 42") == 200
        await admin.execute(mends.format(catalog_database.database))

        async def is_over() -> bool:
            return bool((await shown(service))["ok"])

        await eventually(is_over)
        await eventually(lambda: changed(service, body))
        assert service.process.returncode is None
        assert "Traceback" not in log.read_text()


async def test_a_table_that_cannot_be_used_stops_nothing_that_needs_others(
    api: Api, catalog_database: Database
) -> None:
    await api.tenant("acme")
    service = api.service
    async with catalog_database.connected() as admin:
        await admin.execute("ALTER TABLE recommendations RENAME TO gone")
        service.audit_outbox.enqueue(replace(event(), tenant="acme"))
        await service.reconciler.run_once()
        assert service.audit_outbox.pending == ()
        with pytest.raises(CatalogUnusable, match='"recommendations" does not exist'):
            await service.catalog.check_tables()
        with pytest.raises(CatalogUnavailable, match='"recommendations" does not exist'):
            await service.catalog.recommendations.page()
        plan = ok(await api.client.put("/v1/tenants/acme?dry_run=true", json={"weight": 4}))
        assert plan["warnings"] == []
        assert not ok(await api.client.get("/v1/tenants/acme"))["stale"]
        await admin.execute("ALTER TABLE gone RENAME TO recommendations")
    await service.catalog.check_tables()


async def test_a_table_that_somebody_locks_is_not_waited_for(
    api: Api, catalog_database: Database
) -> None:
    """As VACUUM FULL does, for as long as it takes."""
    service = api.service
    async with catalog_database.connected() as admin, admin.transaction():
        await admin.execute("LOCK TABLE recommendations IN ACCESS EXCLUSIVE MODE")
        await service.catalog.check_tables()
        service.audit_outbox.enqueue(event())
        await service.reconciler.run_once()
        assert service.audit_outbox.pending == ()
        assert service.catalog.available


async def test_while_it_cannot_renew_nobody_else_takes_the_lock(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with (
        part_of(FIRST, catalog_address) as first,
        part_of(SECOND, catalog_address) as second,
        catalog_database.connected() as admin,
    ):
        epoch = (await begun(first)).epoch
        assert await second.read() is not None
        await admin.execute("ALTER TABLE leadership RENAME TO gone")
        for _ in range(2):
            with pytest.raises(CatalogUnavailable, match='"leadership" does not exist'):
                await first.renew()
            # A standby goes on with what it knows.
            with pytest.raises(CatalogUnavailable, match='"leadership" does not exist'):
                await second.read()
            assert not await second.try_lock()
        await admin.execute("ALTER TABLE gone RENAME TO leadership")
        await first.renew()
        assert first.epoch == epoch


async def test_a_lock_that_was_taken_with_the_wrong_search_path_is_taken_again(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    name = catalog_database.database
    async with part_of(FIRST, catalog_address) as first, catalog_database.connected() as admin:
        await begun(first)
        await admin.execute(f"ALTER DATABASE {name} SET search_path = nowhere")
        await first.renew()
        await terminate(FIRST, catalog_database)
        await eventually(first.disconnected.is_set)
        for _ in range(2):
            with pytest.raises(CatalogUnavailable, match="search_path"):
                await first.renew()
        await admin.execute(f"ALTER DATABASE {name} RESET search_path")
        await first.renew()
        assert first.is_held


async def test_no_second_catalog_is_made_beside_one_that_is_not_in_the_search_path(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with catalog_database.connected() as admin:
        await admin.execute("CREATE SCHEMA other")
        await admin.execute(f"ALTER DATABASE {catalog_database.database} SET search_path = other")
    for act in (migrate, check_database):
        with pytest.raises(CatalogUnusable, match=r"schema public, .* SET search_path = public;"):
            await act(catalog_address)
    async with catalog_database.connected() as admin:
        await admin.execute(f"ALTER DATABASE {catalog_database.database} RESET search_path")
    await migrate(catalog_address)


async def test_a_role_that_owns_no_table_makes_no_second_catalog_either(
    catalog_database: Database,
) -> None:
    name = catalog_database.database
    async with used_by_a_role(catalog_database) as role, catalog_database.connected() as admin:
        await admin.execute(
            f"CREATE SCHEMA other AUTHORIZATION {ROLE};"
            f" ALTER ROLE {ROLE} IN DATABASE {name} SET search_path = other"
        )
        for act in (migrate, check_database):
            with pytest.raises(CatalogUnusable) as raised:
                await act(address_of(role))
        _, _, remedy = raised.value.detail.partition(f"Run in database {name}: ")
        assert not await admin.fetch("SELECT FROM pg_tables WHERE schemaname = 'other'")
        await admin.execute(remedy)
        await migrate(address_of(role))


async def test_doctor_names_the_right_that_a_role_lacks(catalog_database: Database) -> None:
    async with used_by_a_role(catalog_database) as role, catalog_database.connected() as admin:
        await check_database(address_of(role))
        await admin.execute(f"REVOKE INSERT ON events FROM {ROLE}")
        with pytest.raises(CatalogUnusable, match=f"Run: GRANT INSERT ON events TO {ROLE};"):
            await check_database(address_of(role))


async def test_a_standby_forwards_while_neither_instance_can_read_who_is_active(
    scrub_roles: None, database: Database, catalog_database: Database, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        active, standby = [
            await stack.enter_async_context(
                served(directory, tenants_in=database, catalog_in=catalog_database, advertises=True)
            )
            for directory in made(tmp_path / "active", tmp_path / "standby")
        ]
        await standby.tenant("acme")
        assert await standby.query("acme", "select 42") == 200
        async with catalog_database.connected() as admin:
            await admin.execute("ALTER TABLE leadership RENAME TO gone")
            for name, event in (
                ("active", "leadership not renewed"),
                ("standby", "catalog unavailable"),
            ):
                log = tmp_path / name / "service.log"
                await eventually(partial(has_logged, log, event))
            for each in (active, standby):
                assert await each.query("acme", "select 42") == 200
            await admin.execute("ALTER TABLE gone RENAME TO leadership")
        await eventually(lambda: changed(standby, {"strategy": "per_tenant", "weight": 2}))
        for each in (active, standby):
            assert each.process.returncode is None
    for name in ("active", "standby"):
        assert "Traceback" not in (tmp_path / name / "service.log").read_text()


def made(*directories: Path) -> tuple[Path, ...]:
    for each in directories:
        each.mkdir()
    return directories


def has_logged(log: Path, event: str) -> bool:
    return any(each["event"] == event for each in events_in(log))
