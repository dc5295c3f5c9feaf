"""A restored catalog has tenants whose roles were provisioned again since, for other tenants."""

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
    await control.declarations.put(spec_of("acme", moved_to), PERSON)
    await control.provisioning.provision(control.state("acme"), PERSON, adopt=True)
    assert await audited(control) == {"acme": {}}
    async with catalog_database.connected() as connection:
        await connection.execute(
            "UPDATE tenants SET (uid, strategy) = ($1, 'per_database')", backup.uid
        )
    control.manager.remove_tenant("acme")
    await control.declarations.load()
    assert await audited(control) == {"acme": {AuditCheck.ROLE: Severity.CRITICAL}}
    await control.provisioning.provision(control.state("acme"), PERSON, adopt=True)
    assert (await audited(control))["acme"] == {}
