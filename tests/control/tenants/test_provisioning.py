"""Provisioning: idempotent, repeatable, recorded."""

import pytest

from app.control.tenants import provisioning
from app.domain.errors import (
    ServerUnavailable,
)
from app.domain.tenant import PoolStrategy
from tests.fixtures.control import PERSON, Control, spec_of


async def test_provisioning_twice_is_provisioning_once(control: Control) -> None:
    await control.declare(spec_of("acme"))
    first, objects = await control.provisioning.provision(control.state("acme"), PERSON)
    second, again = await control.provisioning.provision(control.state("acme"), PERSON)
    assert objects == again == ["role tenant_acme", "schema tenant_acme"]
    assert first.provisioned_at == second.provisioned_at
    assert await control.actions() == ["tenant.created", "tenant.provisioned"]


async def test_provisioning_that_takes_too_long_may_be_tried_again(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.declare(spec_of("acme"))
    with monkeypatch.context() as patched:
        patched.setattr(provisioning, "_PROVISION_DEADLINE", 0.0)
        with pytest.raises(ServerUnavailable):
            await control.provisioning.provision(control.state("acme"), PERSON)
    await control.provisioning.provision(control.state("acme"), PERSON)


async def test_adopting_existing_objects_is_recorded_every_time(control: Control) -> None:
    await control.tenant("acme")
    await control.provisioning.provision(control.state("acme"), PERSON, adopt=True)
    assert (await control.actions()).count("tenant.provisioned") == 2


async def test_a_role_that_is_taken_over_loses_the_database_of_the_earlier_strategy(
    control: Control,
) -> None:
    """A tenant moves from a schema to a database of its own: its role may enter that one only."""
    await control.tenant("acme", PoolStrategy.PER_TENANT)
    await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    await control.declare(spec_of("acme", PoolStrategy.PER_DATABASE))
    await control.provisioning.provision(control.state("acme"), PERSON, adopt=True)
    async with control.manager.servers["local"].admin() as admin:
        for right in ("CONNECT", "TEMPORARY"):
            asked = "SELECT has_database_privilege('tenant_acme', current_database(), $1)"
            assert not await admin.fetchval(asked, right)


async def test_a_tenant_may_use_the_schema_public_of_its_database_whoever_owns_it(
    control: Control,
) -> None:
    """Before PostgreSQL 15 the owner of a new database does not own it."""
    await control.tenant("acme", PoolStrategy.PER_DATABASE)
    async with control.manager.servers["local"].admin("tenant_acme") as admin:
        await admin.execute("ALTER SCHEMA public OWNER TO CURRENT_USER")
        asked = "SELECT has_schema_privilege('tenant_acme', 'public', 'CREATE')"
        assert not await admin.fetchval(asked)
    await control.provisioning.provision(control.state("acme"), PERSON)
    async with control.manager.servers["local"].admin("tenant_acme") as admin:
        assert await admin.fetchval(asked)
