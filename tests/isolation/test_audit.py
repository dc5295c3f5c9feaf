"""The isolation audit finds what breaks each promise, and undoes what a role did to itself."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from app.domain.isolation_checks import AuditCheck, Severity
from app.domain.tenant import PoolStrategy
from tests.fixtures.postgres import Database
from tests.isolation.arena import PER_DATABASE, PER_TENANT, SHARED, Arena

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """Something that breaks a promise: a superuser's statements that do it and undo it."""

    do: str
    undo: str
    matters: tuple[PoolStrategy, ...] = tuple(PoolStrategy)
    finds: AuditCheck
    severity: Severity = Severity.CRITICAL


BREACHES = (
    Breach(
        do="ALTER ROLE {me} SUPERUSER",
        undo="ALTER ROLE {me} NOSUPERUSER",
        finds=AuditCheck.ROLE_ATTRIBUTES,
    ),
    Breach(
        do="ALTER ROLE {me} BYPASSRLS CREATEROLE CREATEDB REPLICATION",
        undo="ALTER ROLE {me} NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION",
        finds=AuditCheck.ROLE_ATTRIBUTES,
    ),
    Breach(
        do="ALTER ROLE {me} NOLOGIN",
        undo="ALTER ROLE {me} LOGIN",
        finds=AuditCheck.ROLE,
        severity=Severity.CRITICAL,
    ),
    Breach(
        do="GRANT pg_read_all_data TO {me}",
        undo="REVOKE pg_read_all_data FROM {me}",
        finds=AuditCheck.MEMBERSHIPS,
    ),
    Breach(
        do="GRANT {other} TO {me}", undo="REVOKE {other} FROM {me}", finds=AuditCheck.MEMBERSHIPS
    ),
    Breach(
        do="CREATE ROLE poolkeeper_group; GRANT poolkeeper_group TO {me}",
        undo="DROP ROLE poolkeeper_group",
        finds=AuditCheck.MEMBERSHIPS,
        severity=Severity.WARNING,
    ),
    Breach(
        do="CREATE ROLE poolkeeper_outer SUPERUSER; CREATE ROLE poolkeeper_inner;"
        "GRANT poolkeeper_outer TO poolkeeper_inner; GRANT poolkeeper_inner TO {me}",
        undo="DROP ROLE poolkeeper_outer, poolkeeper_inner",
        finds=AuditCheck.MEMBERSHIPS,
    ),
    Breach(
        do="GRANT CONNECT ON DATABASE postgres TO PUBLIC",
        undo="REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
        finds=AuditCheck.OTHER_DATABASES,
        severity=Severity.WARNING,
    ),
    Breach(
        do="GRANT CONNECT ON DATABASE tenants_of_another_service TO {me}",
        undo="REVOKE CONNECT ON DATABASE tenants_of_another_service FROM {me}",
        finds=AuditCheck.OTHER_DATABASES,
    ),
    Breach(
        do="GRANT CREATE ON SCHEMA public TO PUBLIC",
        undo="REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        matters=(SHARED, PER_TENANT),
        finds=AuditCheck.PUBLIC_SCHEMA,
    ),
    Breach(
        do="GRANT TEMPORARY ON DATABASE {home} TO PUBLIC",
        undo="REVOKE TEMPORARY ON DATABASE {home} FROM PUBLIC",
        matters=(SHARED,),
        finds=AuditCheck.TEMPORARY_TABLES,
    ),
    Breach(
        do="CREATE TABLE owned (); ALTER TABLE owned OWNER TO {me}",
        undo="DROP TABLE owned",
        matters=(SHARED,),
        finds=AuditCheck.OWNERSHIP,
    ),
    Breach(
        do="ALTER SCHEMA {me} OWNER TO CURRENT_USER",
        undo="ALTER SCHEMA {me} OWNER TO {me}",
        matters=(PER_TENANT,),
        finds=AuditCheck.OWNERSHIP,
    ),
    Breach(
        do="GRANT USAGE ON SCHEMA {me} TO PUBLIC",
        undo="REVOKE USAGE ON SCHEMA {me} FROM PUBLIC",
        matters=(PER_TENANT,),
        finds=AuditCheck.CLOSED_TO_OTHERS,
    ),
    Breach(
        do="GRANT CONNECT ON DATABASE {home} TO {other}",
        undo="REVOKE CONNECT ON DATABASE {home} FROM {other}",
        matters=(PER_DATABASE,),
        finds=AuditCheck.CLOSED_TO_OTHERS,
        severity=Severity.WARNING,
    ),
    Breach(
        do="GRANT CONNECT ON DATABASE {home} TO PUBLIC",
        undo="REVOKE CONNECT ON DATABASE {home} FROM PUBLIC",
        matters=(PER_DATABASE,),
        finds=AuditCheck.CLOSED_TO_OTHERS,
    ),
    Breach(
        do="ALTER ROLE {me} CONNECTION LIMIT -1",
        undo="SELECT 'the isolation audit does it'",
        matters=(PER_TENANT, PER_DATABASE),
        finds=AuditCheck.CONNECTION_LIMIT,
        severity=Severity.WARNING,
    ),
    Breach(
        do="ALTER ROLE {me} SET jit = off; ALTER ROLE {me} IN DATABASE {home} SET jit = off",
        undo="SELECT 'the isolation audit does it'",
        finds=AuditCheck.SETTINGS,
        severity=Severity.WARNING,
    ),
    Breach(
        do="CREATE TABLE plain (tenant_id text); GRANT SELECT ON plain TO {me}",
        undo="DROP TABLE plain",
        matters=(SHARED,),
        finds=AuditCheck.ROW_SECURITY,
    ),
    Breach(
        do="CREATE TABLE unforced (tenant_id text); GRANT SELECT (tenant_id) ON unforced TO {me};"
        "ALTER TABLE unforced ENABLE ROW LEVEL SECURITY",
        undo="DROP TABLE unforced",
        matters=(SHARED,),
        finds=AuditCheck.ROW_SECURITY,
    ),
    Breach(
        do="CREATE POLICY everything ON notes USING (true)",
        undo="DROP POLICY everything ON notes",
        matters=(SHARED,),
        finds=AuditCheck.ROW_SECURITY,
        severity=Severity.WARNING,
    ),
    Breach(
        do="GRANT TRUNCATE ON notes TO {me}",
        undo="REVOKE TRUNCATE ON notes FROM {me}",
        matters=(SHARED,),
        finds=AuditCheck.RLS_BYPASS,
    ),
    Breach(
        do="CREATE VIEW seen AS SELECT * FROM notes; GRANT SELECT ON seen TO {me}",
        undo="DROP VIEW seen",
        matters=(SHARED,),
        finds=AuditCheck.RLS_BYPASS,
    ),
    Breach(
        do="CREATE MATERIALIZED VIEW kept AS SELECT * FROM notes; GRANT SELECT ON kept TO {me}",
        undo="DROP MATERIALIZED VIEW kept",
        matters=(SHARED,),
        finds=AuditCheck.RLS_BYPASS,
    ),
    Breach(
        do="CREATE FUNCTION f() RETURNS void SECURITY DEFINER LANGUAGE sql AS ''",
        undo="DROP FUNCTION f()",
        matters=(SHARED,),
        finds=AuditCheck.RLS_BYPASS,
        severity=Severity.WARNING,
    ),
)
CASES = [
    pytest.param(strategy, breach, id=f"{strategy}-{breach.finds}-{number}")
    for number, breach in enumerate(BREACHES)
    for strategy in breach.matters
]


async def audited(arena: Arena) -> dict[AuditCheck, Severity]:
    state = arena.manager.tenants.state(arena.mallory)
    await arena.self_check.audit(arena.server, [state])
    assert state.isolation is not None
    return {finding.check: finding.severity for finding in state.isolation.findings}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def another_database(postgres_server: Database) -> AsyncIterator[None]:
    """A database that belongs to no tenant, whatever its name; nobody may connect to it."""
    name = "tenants_of_another_service"
    async with postgres_server.connected() as admin:
        await admin.execute(f"CREATE DATABASE {name}")
        await admin.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
        yield
        await admin.execute(f"DROP DATABASE {name}")


@pytest.mark.parametrize(("strategy", "breach"), CASES)
async def test_what_breaks_a_promise_is_found(
    arenas: dict[PoolStrategy, Arena], strategy: PoolStrategy, breach: Breach
) -> None:
    arena = arenas[strategy]
    assert await audited(arena) == {}
    await arena.run(breach.do)
    try:
        found = await audited(arena)
        assert found.pop(breach.finds) is breach.severity
        # Whoever can read everything, in whatever way, can also read what no policy protects.
        assert found.keys() <= {AuditCheck.ROW_SECURITY, AuditCheck.RLS_BYPASS}
    finally:
        await arena.run(breach.undo)
    assert await audited(arena) == {}


@pytest.mark.parametrize("strategy", PoolStrategy)
async def test_what_a_role_set_for_itself_is_undone_and_its_connections_replaced(
    arenas: dict[PoolStrategy, Arena], strategy: PoolStrategy
) -> None:
    arena = arenas[strategy]
    async with arena.lease() as connection:
        before = connection.get_server_pid()
        await connection.execute("ALTER ROLE CURRENT_USER SET work_mem = '64kB'")
    assert await audited(arena) == {AuditCheck.SETTINGS: Severity.WARNING}
    async with arena.lease() as connection:
        assert connection.get_server_pid() != before
        assert await connection.fetchval("SHOW work_mem") != "64kB"
    actions = [event.action for event in arena.self_check._outbox.pending]
    assert "pool.role_settings_reset" in actions


@pytest.mark.parametrize("strategy", [PER_TENANT, PER_DATABASE])
async def test_a_session_on_a_node_that_resets_all_still_looks_whether_its_client_is_there(
    arenas: dict[PoolStrategy, Arena], strategy: PoolStrategy
) -> None:
    arena = arenas[strategy]
    # Poolers send no settings when they connect.
    login = replace(arena.login(arena.mallory), settings={})
    for by_the_role in (
        "SELECT 42",
        "ALTER ROLE CURRENT_USER SET client_connection_check_interval = 0",
    ):
        async with arena.lease() as connection:
            await connection.execute(by_the_role)
        await audited(arena)
        session = await arena.server.connect(login)
        await session.execute("SET client_connection_check_interval = 0; RESET ALL")
        assert await session.fetchval("SHOW client_connection_check_interval") == "50ms"
        await session.close(timeout=5)
    assert await audited(arena) == {}
