"""Each tenant is audited in its turn, with one connection per server; limits follow sizes."""

import asyncio
from collections.abc import Iterable
from typing import Any

import asyncpg
import pytest

from app.control.monitoring.isolation_audit import IsolationAudit
from app.domain.desired_pool import PoolChange
from app.domain.errors import ServerUnavailable
from app.domain.isolation_checks import AuditCheck, Severity
from app.domain.isolation_facts import RoleFacts
from app.domain.tenant import PoolStrategy
from app.pools.isolation import inspection
from app.pools.isolation.repair import Repair, repair
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState
from app.wire import Login
from tests.fixtures.control import PERSON, Control
from tests.fixtures.postgres import Database
from tests.fixtures.turns import counted_turns
from tests.fixtures.waiting import eventually


async def test_a_round_audits_every_tenant_with_one_connection_a_server(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        await control.tenant(f"t{number}", list(PoolStrategy)[number % 3])
    opened = 0
    admin = Server.admin

    def counted(server: Server, database: str | None = None) -> object:
        nonlocal opened
        opened += 1
        return admin(server, database)

    monkeypatch.setattr(Server, "admin", counted)
    before = {name: one.isolation for name, one in control.manager.tenants.items()}
    await control.isolation_audit.run_once()
    assert opened == 1
    for name, state in control.manager.tenants.items():
        assert state.isolation is not None
        assert state.isolation is not before[name]
    await control.isolation_audit.run_once()
    assert opened == 1, "nothing is due again at once"
    async with control.manager.lease("t0"):
        pass
    await control.isolation_audit.run_once()
    assert opened == 2, "a pool that was opened is audited"


async def test_a_database_with_the_privileges_that_postgres_gives_is_found(
    control: Control, postgres_server: Database
) -> None:
    """Nobody has granted or revoked anything on it."""
    await control.tenant("acme")
    await postgres_server.administer("CREATE DATABASE untouched")
    try:
        state = control.state("acme")
        await control.isolation_audit.audit(control.manager.servers["local"], [state])
    finally:
        await postgres_server.administer("DROP DATABASE untouched WITH (FORCE)")
    assert state.isolation is not None
    [finding] = state.isolation.findings
    assert (finding.check, finding.severity) == (AuditCheck.OTHER_DATABASES, Severity.CRITICAL)
    assert "can connect to database untouched" in finding.detail
    assert "by a right of PUBLIC need one of their own first" in finding.detail


async def test_a_database_that_the_operator_knows_is_found_only_if_its_right_is_not_everyones(
    control: Control, postgres_server: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    state, server = control.state("acme"), control.manager.servers["local"]
    monkeypatch.setattr(server, "open_databases", frozenset({"known"}))
    await postgres_server.administer("CREATE DATABASE known")
    try:
        found = []
        for statement in ("SELECT 1", "GRANT CONNECT ON DATABASE known TO tenant_acme"):
            await postgres_server.administer(statement)
            await control.isolation_audit.audit(server, [state])
            assert state.isolation is not None
            found.append([each.check for each in state.isolation.findings])
        assert found == [[], [AuditCheck.OTHER_DATABASES]]
    finally:
        await postgres_server.administer("DROP DATABASE known WITH (FORCE)")


async def test_of_many_roles_some_become_facts_in_each_turn(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        await control.tenant(f"t{number}", list(PoolStrategy)[number % 3])
    found = []
    inspect = inspection.inspect

    async def kept(*args: Any, **given: Any) -> object:
        found.append(await inspect(*args, **given))
        return found[-1]

    monkeypatch.setattr("app.control.monitoring.isolation_audit.inspect", kept)
    server, states = control.manager.server("local"), control.manager.tenants.values()
    await control.isolation_audit.audit(server, states)
    monkeypatch.setattr(inspection, "_ROLES_AT_ONCE", 2)
    async with counted_turns() as turns:
        monkeypatch.setattr(inspection, "RoleFacts", turns.counted(RoleFacts))
        await control.isolation_audit.audit(server, states)
    assert found[0] == found[1]
    assert (turns.calls, turns.most) == (5, 2)


async def test_the_event_loop_has_its_turn_while_the_versions_of_passwords_are_noted(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await control.tenant(f"t{number}")
    server, states = control.manager.server("local"), control.manager.tenants.values()
    async with counted_turns() as turns:
        noted = turns.counted(IsolationAudit._password_versions)
        monkeypatch.setattr(IsolationAudit, "_password_versions", noted)
        await control.isolation_audit.audit(server, states)
    assert (turns.calls, turns.most) == (6, 1)


async def test_tenants_provisioned_at_the_same_time_are_audited_together(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        await control.tenant(f"t{number}")
    audited: list[list[str]] = []
    audit = IsolationAudit.audit

    async def noted(self: IsolationAudit, server: Server, states: Iterable[TenantState]) -> None:
        states = list(states)
        audited.append([state.tenant.spec.id for state in states])
        await audit(self, server, states)

    monkeypatch.setattr(IsolationAudit, "audit", noted)
    server = control.manager.server("local")
    states = dict(control.manager.tenants)
    before = {name: state.isolation for name, state in states.items()}
    await asyncio.gather(
        *(control.isolation_audit.audit_provisioned(server, each) for each in states.values())
    )
    assert [sorted(each) for each in audited] == [["t0"], ["t1", "t2", "t3", "t4", "t5"]]
    assert all(state.isolation is not before[name] for name, state in states.items())


async def test_a_pool_just_opened_is_audited_on_whichever_server(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    await control.isolation_audit.run_once()
    servers = control.manager.servers
    # One that is audited before the tenant's own, and one without tenants.
    monkeypatch.setattr(control.manager, "servers", {"other": _away(), **servers})
    before = control.manager.tenants.state("acme").isolation
    async with control.manager.lease("acme"):
        pass
    await control.isolation_audit.run_once()
    assert control.manager.tenants.state("acme").isolation is not before


def _away() -> Server:
    login = Login(host="127.0.0.1", port=1, user="nobody", password="", database="none")
    return Server("other", login, max_connecting=1, kept_free=0)


async def test_a_server_that_is_away_leaves_the_last_report(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    before = control.manager.tenants.state("acme").isolation

    async def fails(*_: object, **__: object) -> None:
        raise asyncpg.CannotConnectNowError("shutting down")

    monkeypatch.setattr("app.control.monitoring.isolation_audit.inspect", fails)
    await control.isolation_audit.audit(
        control.manager.servers["local"], [control.manager.tenants.state("acme")]
    )
    assert control.manager.tenants.state("acme").isolation is before


async def test_all_tenants_are_audited_at_once_after_an_outage(control: Control) -> None:
    """The server that is back may be another one, without the latest changes."""
    await control.tenant("acme")
    state, server = control.state("acme"), control.manager.servers["local"]
    await control.isolation_audit.run_once()
    before = state.isolation
    await control.isolation_audit.run_once()
    assert state.isolation is before
    server.mark_lost(ServerUnavailable("It is away."))
    await eventually(lambda: server.is_available)
    await control.isolation_audit.run_once()
    assert state.isolation is not before


@pytest.mark.parametrize("strategy", [PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE])
async def test_the_roles_limit_follows_its_pools_size(
    control: Control, database: Database, strategy: PoolStrategy
) -> None:
    async def limit() -> int:
        async with database.connected() as admin:
            query = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'tenant_acme'"
            return int(await admin.fetchval(query))

    await control.tenant("acme", strategy)
    assert await limit() == 5 + 2
    for size in (9, 3, 12):
        await control.pool_operations.put(control.state("acme"), PoolChange(max_size=size), PERSON)
        assert await limit() == size + 2


async def test_mending_a_limit_undoes_no_resize_made_meanwhile(
    control: Control, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    state = control.manager.tenants.state("acme")

    async def after_a_resize(server: Server, repairs: Iterable[Repair]) -> list[Repair]:
        await control.pool_operations.put(control.state("acme"), PoolChange(max_size=9), PERSON)
        return await repair(server, repairs)

    monkeypatch.setattr("app.control.monitoring.isolation_audit.repair", after_a_resize)
    async with database.connected() as admin:
        await admin.execute("ALTER ROLE tenant_acme CONNECTION LIMIT 1")
        await control.isolation_audit.audit(control.manager.servers["local"], [state])
        query = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'tenant_acme'"
        assert await admin.fetchval(query) == 9 + 2


async def test_a_check_that_fails_leaves_nothing_running(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = False

    async def endless(_: Server) -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    async def fails(_: IsolationAudit) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Server, "refresh", endless)
    monkeypatch.setattr(IsolationAudit, "run_once", fails)
    with pytest.raises(ExceptionGroup) as caught:
        await control.health_checks.run_once()
    assert caught.group_contains(ZeroDivisionError)
    assert ended
