"""The findings of `poolkeeper doctor`; the SQL that it prints is sufficient."""

import asyncio
import os
import re
import subprocess
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from app.cli.doctor import Findings, examine, tls_requirement
from app.embedded import EmbeddedPostgres
from app.pools.servers.server_requirements import AdminFacts, judge
from app.settings import Endpoint, Settings
from tests.fixtures.canary import SECRET_KEY
from tests.fixtures.postgres import Database
from tests.fixtures.preloaded import preloaded_program
from tests.fixtures.private_postgres import as_installed

PASSWORD = "doctor-password"


def settings(directory: Path, admin: Database, **more: Any) -> Settings:
    login = {
        "host": admin.host,
        "port": admin.port,
        "user": "poolkeeper",
        "password": PASSWORD,
        "tls": "disable",
    }
    return Settings.model_validate(
        {
            "data_dir": directory,
            "servers": {"main": {**login, "database": "app"}},
            "catalog": login,
            "secret_key": SECRET_KEY,
            **more,
        }
    )


def missing(findings: Findings, place: str) -> list[str]:
    return [each.name for each in findings[place] if not each.is_met]


@pytest.fixture
async def superuser(private_postgres: EmbeddedPostgres) -> Database:
    """A superuser of a server on which nothing was prepared."""
    return await as_installed(private_postgres)


@pytest.fixture
async def admin(superuser: Database) -> Database:
    """A superuser of a server whose service role can only log in."""
    async with superuser.connected() as connection:
        await connection.execute(f"CREATE ROLE poolkeeper LOGIN PASSWORD '{PASSWORD}'")
        await connection.execute("CREATE DATABASE app")
        await connection.execute("CREATE DATABASE poolkeeper OWNER poolkeeper")
    return superuser


async def follow(found: Findings, superuser: Database) -> None:
    """Run the missing SQL, each statement once, as a person would."""
    missing = {
        each.sql: "app" if each.sql_place == "the server's database" else "postgres"
        for every in found.values()
        for each in every
        if not each.is_met and each.sql
    }
    assert missing, found
    for sql, database in missing.items():
        async with replace(superuser, database=database).connected() as connection:
            try:
                for statement in re.split(r";\n(?!--)", sql.replace("<password>", PASSWORD)):
                    await connection.execute(statement)
            except asyncpg.DuplicateObjectError:
                _, _, otherwise = sql.partition("-- or, if it exists: ")
                await connection.execute(otherwise.replace("<password>", PASSWORD))


async def test_its_sql_leads_from_a_bare_server_to_one_that_can_be_used(
    superuser: Database, tmp_path: Path
) -> None:
    broken_by = [
        "SELECT 'nothing was prepared'",
        "ALTER ROLE poolkeeper PASSWORD 'another'",
        "ALTER ROLE poolkeeper NOLOGIN",
        "ALTER DATABASE app OWNER TO CURRENT_USER",
        "REVOKE CREATE ON DATABASE app FROM poolkeeper",
        "REVOKE CONNECT ON DATABASE app FROM poolkeeper CASCADE",
    ]
    for sql in broken_by:
        async with superuser.connected() as connection:
            await connection.execute(sql)
        rounds = 0
        while missing(found := await examine(settings(tmp_path, superuser)), "server main") or (
            missing(found, "catalog")
        ):
            assert rounds < 4, (sql, found)
            assert PASSWORD not in repr(found)
            await follow(found, superuser)
            rounds += 1
        assert rounds, sql


def test_a_setting_that_waits_for_a_restart_is_not_to_be_set_again() -> None:
    facts = AdminFacts(
        version=16,
        encoding="UTF8",
        max_locks=64,
        is_restart_due=False,
        role="poolkeeper",
        database="app",
        is_superuser=True,
        makes_roles_and_databases=True,
        makes_schemas=True,
        grants_access=True,
        is_closed=True,
        is_public_schema_closed=True,
        other_open_databases=(),
    )
    [unset] = [each for each in judge(facts) if not each.is_met]
    assert unset.sql is not None
    [due] = [each for each in judge(replace(facts, is_restart_due=True)) if not each.is_met]
    assert due.sql is None
    assert "restart Postgres" in due.detail


async def test_a_catalog_in_which_no_table_can_be_made_is_found(
    admin: Database, tmp_path: Path
) -> None:
    async with admin.connected() as connection:
        await connection.execute("ALTER DATABASE poolkeeper OWNER TO CURRENT_USER")
    found = await examine(settings(tmp_path, admin))
    [rights] = [each for each in found["catalog"] if not each.is_met]
    _, _, sql = rights.detail.partition("poolkeeper: ")
    async with replace(admin, database="poolkeeper").connected() as connection:
        await connection.execute(sql)
    assert missing(await examine(settings(tmp_path, admin)), "catalog") == []


async def test_the_sql_it_prints_is_enough(admin: Database, tmp_path: Path) -> None:
    async with replace(admin, database="app").connected() as connection:
        await connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    found = await examine(settings(tmp_path, admin))
    assert missing(found, "server main") == [
        "role",
        "schemas",
        "grants",
        "database",
        "public schema",
        "other databases",
    ]
    assert missing(found, "catalog") == missing(found, "this machine") == []
    async with replace(admin, database="app").connected() as connection:
        for each in found["server main"]:
            if not each.is_met and each.sql:
                await connection.execute(each.sql)
    found = await examine(settings(tmp_path, admin))
    assert missing(found, "server main") == []


async def test_open_databases_that_the_operator_knows_are_not_missing(
    admin: Database, tmp_path: Path
) -> None:
    given, known = settings(tmp_path, admin), ["postgres", "template1"]
    [open_] = [each for each in (await examine(given))["server main"] if "databases" in each.name]
    assert not open_.is_met
    assert "postgres, template1; what only your provider can close" in open_.detail
    main = given.servers["main"].model_copy(update={"open_databases": known})
    found = await examine(given.model_copy(update={"servers": {"main": main}}))
    [others] = [each for each in found["server main"] if each.name == "other databases"]
    assert others.is_met
    assert others.detail.endswith("no other database than postgres, template1 (open_databases)")


async def test_its_sql_locks_nobody_out_who_is_connected(admin: Database, tmp_path: Path) -> None:
    async with admin.connected() as connection:
        await connection.execute('CREATE DATABASE "legacy TO be"')
        await connection.execute("""
            CREATE ROLE old_web LOGIN PASSWORD 'old';
            CREATE ROLE old_job LOGIN PASSWORD 'old';
            CREATE ROLE old_owner LOGIN PASSWORD 'old';
            ALTER DATABASE app OWNER TO old_owner;
        """)
    web = replace(admin, user="old_web", password="old", database="legacy TO be")
    both = [web, replace(web, user="old_job"), replace(web, database="app")]
    async with AsyncExitStack() as stack:
        for each in [*both, replace(both[2], user="old_owner")]:
            await stack.enter_async_context(each.connected())
        found = await examine(settings(tmp_path, admin))
    sql = {each.name: each.sql for each in found["server main"] if not each.is_met}
    granted = re.compile("GRANT CONNECT, TEMPORARY ON DATABASE (.*);  -- connected now")
    assert granted.findall(sql["other databases"] or "") == ['"legacy TO be" TO old_job, old_web']
    assert granted.findall(sql["database"] or "") == ["app TO old_web"]
    async with replace(admin, database="app").connected() as connection:
        await connection.execute(sql["other databases"] or "")
        await connection.execute(sql["database"] or "")
    for each in both:
        async with each.connected() as connection:
            await connection.execute("CREATE TEMPORARY TABLE note ()")


async def test_its_sql_gives_no_tenant_a_right_of_its_own(admin: Database, tmp_path: Path) -> None:
    """Not even to those that are connected at this moment to what it closes."""
    tenants = ("tenant_acme", "poolkeeper_shared")
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(admin.connected())
        await connection.execute("CREATE DATABASE legacy")
        for role in tenants:
            await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'its'")
            login = replace(admin, user=role, password="its", database="legacy")
            await stack.enter_async_context(login.connected())
        found = await examine(settings(tmp_path, admin))
        [sql] = [each.sql for each in found["server main"] if each.name == "other databases"]
        await connection.execute(sql or "")
        for role in tenants:
            assert not await connection.fetchval(
                "SELECT has_database_privilege($1, 'legacy', 'CONNECT')", role
            )


async def test_a_catalog_and_keys_that_cannot_be_used_are_found(
    admin: Database, tmp_path: Path
) -> None:
    async with admin.connected() as connection:
        await connection.execute("DROP DATABASE poolkeeper")
        await connection.execute(
            "CREATE DATABASE poolkeeper TEMPLATE template0 ENCODING 'SQL_ASCII'"
            " LOCALE 'C' LOCALE_PROVIDER libc OWNER poolkeeper"
        )
    found = await examine(settings(tmp_path, admin, keys_file=tmp_path / "none.json"))
    [encoding] = [each for each in found["catalog"] if not each.is_met]
    assert "must be in UTF8" in encoding.detail
    assert missing(found, "this machine") == ["API keys"]


async def test_a_catalog_of_a_newer_version_is_found(admin: Database, tmp_path: Path) -> None:
    async with replace(admin, database="poolkeeper").connected() as connection:
        await connection.execute("""
            CREATE TABLE alembic_version (version_num text); GRANT ALL ON alembic_version TO PUBLIC;
            INSERT INTO alembic_version VALUES ('9999')
        """)
    [newer] = [
        each for each in (await examine(settings(tmp_path, admin)))["catalog"] if not each.is_met
    ]
    assert "revision 9999 is unknown. Start that version" in newer.detail
    assert newer.sql is None


async def test_it_prints_what_is_missing_and_exits_with_1(admin: Database, tmp_path: Path) -> None:
    program = preloaded_program(tmp_path)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PG")},
        "POOLKEEPER_DATA_DIR": str(tmp_path / "data"),
        "POOLKEEPER_SECRET_KEY": SECRET_KEY,
    }
    for place in ("SERVERS__MAIN", "CATALOG"):
        login = {"HOST": admin.host, "PORT": str(admin.port), "USER": "poolkeeper"}
        login |= {"PASSWORD": PASSWORD, "TLS": "disable"}
        environment |= {f"POOLKEEPER_{place}__{key}": value for key, value in login.items()}
    environment["POOLKEEPER_SERVERS__MAIN__DATABASE"] = "app"
    for port, printed in [
        (admin.port, "GRANT CREATE ON DATABASE app TO poolkeeper;"),
        (1, "failed   connection: "),
    ]:
        environment["POOLKEEPER_SERVERS__MAIN__PORT"] = str(port)
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
            [program, "doctor"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert printed in done.stdout
        assert done.stderr == ""


async def test_where_tls_is_the_reason_its_settings_are_named(
    admin: Database, tmp_path: Path
) -> None:
    without = settings(tmp_path, admin)
    login = without.servers["main"].model_copy(update={"tls": "verify-full"})
    found = await examine(without.model_copy(update={"servers": {"main": login}, "catalog": login}))
    [failed] = [each for each in found["server main"] if not each.is_met]
    assert failed.detail.startswith(
        "The server does not offer TLS. POOLKEEPER_SERVERS__MAIN__TLS_CA_FILE names"
    )
    [failed] = [each for each in found["catalog"] if not each.is_met]
    assert "POOLKEEPER_CATALOG__TLS=require" in failed.detail


def test_a_way_that_is_not_safe_names_the_setting_that_makes_it_so() -> None:
    far = Endpoint(host="db.example.com", user="a", password=SecretStr("b"), tls="require")
    found = tls_requirement(far, "POOLKEEPER_CATALOG__TLS")
    assert not found.is_met
    assert found.detail == (
        "require to db.example.com:5432; set POOLKEEPER_CATALOG__TLS=verify-full, and "
        "POOLKEEPER_CATALOG__TLS_CA_FILE if the certificate is your own"
    )


async def test_a_server_that_stops_answering_is_a_finding(
    admin: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: Any, **__: Any) -> AdminFacts:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(AdminFacts, "read", silent)
    monkeypatch.setattr("app.pools.servers.server_requirements._DEADLINE", 0.05)
    async with asyncio.timeout(60):
        found = await examine(settings(tmp_path, admin))
    [refused] = [each for each in found["server main"] if each.name == "connection"]
    assert (refused.is_met, refused.detail) == (False, "The server took too long to answer.")
