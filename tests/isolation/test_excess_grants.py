"""What an owner opens to others is reported for the owner alone, and is revoked."""

from dataclasses import replace

import pytest

from app.domain.errors import TenantLoginFailed
from app.domain.isolation_checks import AuditCheck, Severity
from app.domain.tenant import PoolStrategy
from tests.fixtures.control import PERSON, Control
from tests.fixtures.postgres import Database

OPEN, NEIGHBOUR, SHARED = "tenant_open", "tenant_neighbour", "poolkeeper_shared"
# By strategy of the owner: what it does, and the severity of its finding.
GRANTS = [
    (PoolStrategy.PER_DATABASE, "GRANT CONNECT ON DATABASE {me} TO PUBLIC", Severity.CRITICAL),
    (PoolStrategy.PER_DATABASE, "GRANT ALL ON DATABASE {me} TO {other}", Severity.WARNING),
    (PoolStrategy.PER_DATABASE, "GRANT TEMPORARY ON DATABASE {me} TO {shared}", Severity.WARNING),
    (PoolStrategy.PER_TENANT, "GRANT USAGE ON SCHEMA {me} TO PUBLIC", Severity.CRITICAL),
    (PoolStrategy.PER_TENANT, "GRANT ALL ON SCHEMA {me} TO {other}, {shared}", Severity.WARNING),
    (
        PoolStrategy.PER_TENANT,
        "GRANT USAGE ON SCHEMA {me} TO {other} WITH GRANT OPTION",
        Severity.WARNING,
    ),
]


async def audited(control: Control) -> dict[str, dict[AuditCheck, Severity]]:
    """The findings of every tenant, after an audit of all."""
    accounts = control.manager.tenants
    await control.isolation_audit.audit(control.manager.servers["local"], accounts.values())
    return {
        name: {one.check: one.severity for one in state.isolation.findings}
        for name, state in accounts.items()
        if state.isolation is not None
    }


async def neighbours(control: Control) -> dict[str, dict[AuditCheck, Severity]]:
    """One tenant of each strategy, all without findings."""
    for strategy in PoolStrategy:
        await control.tenant(f"neighbour-{strategy.replace('_', '-')}", strategy)
    await control.tenant("neighbour")
    return await audited(control)


@pytest.mark.parametrize(("strategy", "grant", "severity"), GRANTS)
async def test_what_an_owner_opens_is_charged_to_it_alone_and_closed(
    control: Control, strategy: PoolStrategy, grant: str, severity: Severity
) -> None:
    well = await neighbours(control)
    await control.tenant("open", strategy)
    for _ in range(2):
        async with control.manager.lease("open") as connection:
            await connection.execute(grant.format(me=OPEN, other=NEIGHBOUR, shared=SHARED))
        assert await audited(control) == {**well, "open": {AuditCheck.CLOSED_TO_OTHERS: severity}}
        assert await audited(control) == {**well, "open": {}}
    actions = [one for one in control.audit_outbox.pending if one.action == "tenant.grants_revoked"]
    assert [one.tenant for one in actions] == ["open"], "the second time is told an hour later"


@pytest.mark.parametrize("strategy", [PoolStrategy.PER_DATABASE, PoolStrategy.PER_TENANT])
async def test_what_a_deleted_tenant_left_open_is_closed(
    control: Control, database: Database, strategy: PoolStrategy
) -> None:
    well = await neighbours(control)
    await control.tenant("open", strategy)
    kind = "DATABASE" if strategy is PoolStrategy.PER_DATABASE else "SCHEMA"
    async with control.manager.lease("open") as connection:
        await connection.execute(f"GRANT ALL ON {kind} {OPEN} TO PUBLIC")
    await control.deletions.delete(control.state("open"), PERSON, deadline=0)
    assert await audited(control) == well
    async with database.connected() as admin:
        table, name, acl = {
            "DATABASE": ("pg_database", "datname", "datacl"),
            "SCHEMA": ("pg_namespace", "nspname", "nspacl"),
        }[kind]
        left = await admin.fetchval(
            f"SELECT count(*) FROM {table}, aclexplode({acl}) WHERE {name} = $1 AND grantee = 0",
            OPEN,
        )
    assert left == 0


async def test_what_the_operator_allows_a_role_of_its_own_stays(
    control: Control, database: Database
) -> None:
    await control.tenant("open", PoolStrategy.PER_DATABASE)
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE poolkeeper_reports LOGIN PASSWORD 'reports'")
        await admin.execute(f"GRANT CONNECT ON DATABASE {OPEN} TO poolkeeper_reports")
    assert await audited(control) == {"open": {AuditCheck.CLOSED_TO_OTHERS: Severity.WARNING}}
    reports = replace(database, user="poolkeeper_reports", password="reports", database=OPEN)
    async with reports.connected() as connection:
        assert await connection.fetchval("SELECT 42") == 42


async def test_a_neighbour_no_longer_gets_in_once_it_is_closed(control: Control) -> None:
    await neighbours(control)
    await control.tenant("open", PoolStrategy.PER_DATABASE)
    async with control.manager.lease("open") as connection:
        await connection.execute(f"GRANT CONNECT ON DATABASE {OPEN} TO PUBLIC")
    await audited(control)
    server = control.manager.servers["local"]
    spec = control.manager.tenants.state("neighbour").tenant.spec
    login = control.manager.isolations[PoolStrategy.PER_TENANT].login(server, spec)
    with pytest.raises(TenantLoginFailed):
        await server.connect(login.for_database(OPEN))
