"""Deletions: the pool is closed, the login disabled, the record deleted; data stays."""

import pytest

from app.domain.desired_pool import PoolChange
from app.domain.errors import StaleVersion, TenantNotFound
from app.domain.tenant import PoolStrategy
from tests.fixtures.control import PERSON, Control, spec_of


async def test_a_deleted_tenant_is_gone_but_its_data_stays(control: Control) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme") as connection:
        await connection.execute("create table kept as select 1 as one")
    deletion = await control.deletions.delete(control.state("acme"), PERSON, deadline=1)
    assert deletion.login_disabled
    assert deletion.eviction is not None
    assert deletion.eviction.closed == 1
    with pytest.raises(TenantNotFound):
        control.manager.tenants.state("acme")
    async with control.manager.servers["local"].admin() as admin:
        assert await admin.fetchval('select one from "tenant_acme".kept') == 1
        assert not await admin.fetchval(
            "select rolcanlogin from pg_roles where rolname = 'tenant_acme'"
        )
    assert (await control.actions())[-2:] == ["tenant.deleting", "tenant.deleted"]


async def test_a_change_kept_in_an_outage_goes_with_its_tenant(control: Control) -> None:
    await control.tenant("acme")
    await control.proxy.cut()
    await control.pool_operations.pause(control.state("acme"), PERSON, paused=True)
    await control.proxy.pass_through()
    await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    assert (await control.reconciler.run_once()).changes_saved == 0
    assert await control.catalog.pools.load() == ()


async def test_a_tenant_of_an_undeclared_server_can_be_deleted(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    with monkeypatch.context() as patched:
        patched.setattr(control.manager, "servers", {})
        deletion = await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    assert not deletion.login_disabled
    assert await control.catalog.tenants.load() == ()


async def test_a_deletion_that_waited_closes_the_pool_of_a_later_tenant_of_another_strategy(
    control: Control,
) -> None:
    await control.tenant("acme", PoolStrategy.SHARED)
    waited = control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    await control.tenant("acme", PoolStrategy.PER_TENANT)
    async with control.manager.lease("acme"):
        pass
    eviction = (await waited).eviction
    assert eviction is not None
    assert (eviction.pool_id, eviction.closed) == ("acme", 1)


async def test_a_deletion_records_what_it_closed(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(control.state("acme"), PoolChange(min_size=1), PERSON)
    await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    [event] = await control.catalog.audit_log.page(action="tenant.deleted")
    assert event.after == {"closed": 1, "cut": 0}


async def test_a_tenant_is_not_deleted_that_has_changed_since_it_was_seen(
    control: Control,
) -> None:
    seen = await control.tenant("acme")
    await control.declare(spec_of("acme", weight=2))
    with pytest.raises(StaleVersion):
        await control.deletions.delete(
            control.state("acme"), PERSON, deadline=0, expect=lambda _: seen.generation
        )
    assert not control.state("acme").tenant.deleting
