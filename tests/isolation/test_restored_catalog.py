"""A restored catalog has tenants whose roles were provisioned again since, for other tenants."""

from uuid import uuid4

import pytest

from app.domain.isolation_checks import AuditCheck, Severity
from app.domain.tenant import PoolStrategy
from tests.fixtures.control import PERSON, Control, spec_of
from tests.fixtures.postgres import Database
from tests.isolation.test_excess_grants import audited


@pytest.mark.parametrize("moved_to", [PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE])
async def test_a_tenant_that_was_replaced_since_the_backup_is_found(
    control: Control, catalog_database: Database, moved_to: PoolStrategy
) -> None:
    """Its login works, but its present data may be that of its successor."""
    backup = await control.tenant("acme", PoolStrategy.PER_DATABASE)
    await control.deletions.delete(control.state("acme"), PERSON, deadline=0.0)
    await control.declare(spec_of("acme", moved_to))
    await control.provisioning.provision(control.state("acme"), PERSON, adopt=True)
    assert await audited(control) == {"acme": {}}
    async with catalog_database.connected() as connection:
        await connection.execute(
            "UPDATE tenants SET (uid, strategy) = ($1, 'per_database')", backup.uid
        )
    control.manager.tenants.forget("acme")
    await control.declarations.load()
    assert await audited(control) == {"acme": {AuditCheck.ROLE: Severity.CRITICAL}}
    await control.provisioning.provision(control.state("acme"), PERSON, adopt=True)
    assert (await audited(control))["acme"] == {}


async def test_a_role_that_another_installation_took_over_is_left_to_it(
    control: Control, database: Database
) -> None:
    """What its own audit sets must not be undone by ours."""
    await control.tenant("acme", PoolStrategy.PER_TENANT)
    async with database.connected() as admin:
        await admin.execute(f"COMMENT ON ROLE tenant_acme IS 'poolkeeper tenant {uuid4()}'")
        await admin.execute("ALTER ROLE tenant_acme CONNECTION LIMIT 77")
        await admin.execute("ALTER ROLE tenant_acme SET work_mem = '64MB'")
        assert await audited(control) == {"acme": {AuditCheck.ROLE: Severity.CRITICAL}}
        [role] = await admin.fetch(
            "SELECT rolconnlimit, rolconfig FROM pg_roles WHERE rolname = 'tenant_acme'"
        )
    assert role["rolconnlimit"] == 77
    assert "work_mem=64MB" in role["rolconfig"]
