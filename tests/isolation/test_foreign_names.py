"""Names and settings of others in another encoding hide nothing from checks and stop no change."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest

from app.domain.isolation_checks import AuditCheck, Severity, checks_of
from app.domain.tenant import PoolStrategy
from app.pools.isolation import inspection
from app.pools.servers import server_limits
from tests.fixtures.control import PERSON, Control
from tests.fixtures.postgres import Database
from tests.isolation.test_excess_grants import audited

# In LATIN1, not UTF-8: a database, roles, a comment and settings of the whole cluster.
FOREIGN = (
    'CREATE DATABASE "gr\\u00f6\\u00dfe" TEMPLATE template0',
    'REVOKE CONNECT, TEMPORARY ON DATABASE "gr\\u00f6\\u00dfe" FROM PUBLIC',
    'CREATE ROLE "poolkeeper_gr\\u00f6\\u00dfe"',
    'GRANT CONNECT ON DATABASE "gr\\u00f6\\u00dfe" TO tenant_one',
    'GRANT "poolkeeper_gr\\u00f6\\u00dfe" TO tenant_one',
    "COMMENT ON ROLE \"poolkeeper_gr\\u00f6\\u00dfe\" IS '\\u00fcber alles'",
    "ALTER ROLE tenant_one SET poolkeeper.motto = '\\u00fc'",
    # Where a character has several bytes, half of one before a backslash.
    "ALTER ROLE tenant_one SET poolkeeper.path = 'c:\\u00ff\\\\d'",
    "ALTER ROLE tenant_one IN DATABASE \"gr\\u00f6\\u00dfe\" SET poolkeeper.motto = '\\u00fc'",
    "COMMENT ON DATABASE tenant_big IS '\\u00fcber \\\\ alles'",
    'GRANT CONNECT ON DATABASE tenant_big TO "poolkeeper_gr\\u00f6\\u00dfe"',
)


def plain(statement: str) -> str:
    return statement.encode().decode("unicode_escape")


@asynccontextmanager
async def latin1(server: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database in LATIN1; its names are not ours."""
    async with server.connected() as admin:
        await admin.execute(
            "CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
        )
        try:
            await admin.execute("REVOKE CONNECT, TEMPORARY ON DATABASE latin1 FROM PUBLIC")
            async with replace(server, database="latin1").connected() as connection:
                yield connection
        finally:
            await admin.execute("DROP DATABASE latin1 WITH (FORCE)")


@pytest.fixture
async def database(
    postgres_server: Database, request: pytest.FixtureRequest
) -> AsyncIterator[Database]:
    """The tenants' database, in UTF-8 or the encoding that the test names."""
    encoding = getattr(request, "param", "UTF8")
    home = replace(postgres_server, database=f"test_{uuid4().hex}")
    async with postgres_server.connected() as admin:
        await admin.execute(
            f"CREATE DATABASE {home.database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        )
        await admin.execute(f"REVOKE CONNECT, TEMPORARY ON DATABASE {home.database} FROM PUBLIC")
        try:
            yield home
        finally:
            await admin.execute(f"DROP DATABASE {home.database} WITH (FORCE)")


@pytest.mark.parametrize("database", ["UTF8", "EUC_JP", "SQL_ASCII"], indirect=True)
async def test_every_check_is_made_and_every_change_works_among_names_in_no_utf8(
    control: Control, postgres_server: Database
) -> None:
    await control.tenant("one")
    await control.tenant("big", PoolStrategy.PER_DATABASE)
    await control.tenant("small", PoolStrategy.SHARED)
    async with latin1(postgres_server) as foreign:
        home = control.manager.servers["local"].admins.login.database
        try:
            for statement in FOREIGN:
                await foreign.execute(plain(statement))
            await foreign.execute(
                plain(f"ALTER DATABASE {home} SET search_path = 'gr\\u00f6\\u00dfe'")
            )
            found = await audited(control)
            assert found == {
                "one": {
                    AuditCheck.MEMBERSHIPS: Severity.WARNING,
                    AuditCheck.OTHER_DATABASES: Severity.CRITICAL,
                    AuditCheck.SETTINGS: Severity.WARNING,
                },
                "big": {AuditCheck.CLOSED_TO_OTHERS: Severity.WARNING},
                "small": {},
            }
            report = control.manager.tenants.state("one").isolation
            assert report is not None
            assert any(r"gr\xf6\xdfe" in finding.detail for finding in report.findings)
            # What was set is undone, wherever that was.
            assert AuditCheck.SETTINGS not in (await audited(control))["one"]
            await control.tenant("another")
            await control.tenant("another-big", PoolStrategy.PER_DATABASE)
            await control.provisioning.provision(control.state("one"), PERSON)
            assert await control.health_checks.run_once()
            assert control.manager.servers["local"].is_available
        finally:
            await foreign.execute(f"ALTER DATABASE {home} RESET search_path")
            await foreign.execute(plain('DROP DATABASE "gr\\u00f6\\u00dfe"'))
            await foreign.execute(plain('DROP OWNED BY "poolkeeper_gr\\u00f6\\u00dfe"'))
            await foreign.execute(plain('DROP ROLE "poolkeeper_gr\\u00f6\\u00dfe"'))


def test_no_query_uses_a_function_that_refuses_text_in_another_encoding() -> None:
    """PostgreSQL 15.18 has that in starts_with; each version, with half a character, in replace."""
    queries = (
        *(each for name, each in vars(inspection).items() if name[1].isupper()),
        server_limits._QUERY,
    )
    for function in ("starts_with", "replace", "substr", "left(", "^@", "bpchar"):
        assert not any(function in str(query).lower() for query in queries)


@pytest.mark.parametrize(
    "query", ["_DATABASES", "_PUBLIC_CAN_CREATE", "_RELATIONS", "_SECURITY_DEFINERS"]
)
async def test_a_query_that_fails_is_reported_and_the_others_are_made(
    control: Control, monkeypatch: pytest.MonkeyPatch, query: str, database: Database
) -> None:
    await control.tenant("one")
    await control.tenant("small", PoolStrategy.SHARED)
    broken = "SELECT 1 / 0 WHERE $1::text IS NOT NULL OR true"
    if query == "_DATABASES":
        broken = broken.replace("text", "text[]")
    elif query == "_PUBLIC_CAN_CREATE":
        broken = "SELECT 1 / 0"
    else:
        broken = broken.replace("text", "oid")
    monkeypatch.setattr(inspection, query, broken)
    async with database.connected() as admin:
        await admin.execute("GRANT USAGE ON SCHEMA tenant_one TO PUBLIC")
    found = await audited(control)
    assert found["one"].pop(AuditCheck.CLOSED_TO_OTHERS) is Severity.CRITICAL
    severities = {severity for each in found.values() for severity in each.values()}
    assert severities == {Severity.NOT_CHECKED}
    report = control.manager.tenants.state("small").isolation
    assert report is not None
    assert all("division by zero" in finding.detail for finding in report.findings)


async def test_a_tenant_that_cannot_be_audited_hides_no_other(
    control: Control, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    for name in ("one", "odd", "three"):
        await control.tenant(name)
    odd = inspection._ROLES.replace(
        "rolcanlogin as can_login",
        "rolcanlogin and 1 / (ours.rolname <> 'tenant_odd')::int = 1 as can_login",
    )
    monkeypatch.setattr(inspection, "_ROLES", odd)
    async with database.connected() as admin:
        await admin.execute("ALTER ROLE tenant_three NOLOGIN")
    found = await audited(control)
    assert found["odd"] == dict.fromkeys(checks_of(PoolStrategy.PER_TENANT), Severity.NOT_CHECKED)
    assert (found["one"], found["three"]) == ({}, {AuditCheck.ROLE: Severity.CRITICAL})
