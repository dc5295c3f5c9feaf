"""The Keeper: every change recorded with its event, then made true."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from app.control import locks
from app.control.tenants import provisioning
from app.domain.desired_state import PoolChange
from app.domain.errors import (
    BudgetExceeded,
    CatalogUnavailable,
    ImmutableField,
    InvalidInput,
    NotProvisioned,
    PoolDraining,
    PoolIsShared,
    ServerNotFound,
    ServerUnavailable,
    StaleVersion,
    TenantDeleting,
    TenantNotFound,
    Unavailable,
)
from app.domain.pool import PoolSize, PoolState
from app.domain.tenant import PoolStrategy
from tests.fixtures.control import PERSON, Control, spec_of
from tests.fixtures.waiting import eventually


async def test_a_new_tenant_is_stored_known_and_told(control: Control) -> None:
    tenant, created = await control.declarations.put(spec_of("acme"), PERSON)
    assert created
    assert control.manager.tenant_state("acme").tenant == tenant
    assert await control.catalog.tenants.load() == (tenant,)
    [event] = await control.catalog.audit_log.page()
    assert (event.action, event.tenant, event.actor) == ("tenant.created", "acme", PERSON)


async def test_the_same_declaration_again_changes_and_tells_nothing(control: Control) -> None:
    first, _ = await control.declarations.put(spec_of("acme"), PERSON)
    second, created = await control.declarations.put(spec_of("acme"), PERSON)
    assert not created
    assert second.generation == first.generation
    assert await control.actions() == ["tenant.created"]


async def test_server_and_strategy_of_a_tenant_never_change(control: Control) -> None:
    await control.declarations.put(spec_of("acme"), PERSON)
    with pytest.raises(ImmutableField):
        await control.declarations.put(spec_of("acme", PoolStrategy.SHARED), PERSON)


async def test_an_undeclared_server_is_refused(control: Control) -> None:
    with pytest.raises(ServerNotFound):
        await control.declarations.put(spec_of("acme", server="elsewhere"), PERSON)


async def test_a_stale_generation_is_refused(control: Control) -> None:
    tenant, _ = await control.declarations.put(spec_of("acme"), PERSON)
    await control.declarations.put(
        spec_of("acme", weight=2), PERSON, expected_generation=tenant.generation
    )
    with pytest.raises(StaleVersion):
        await control.declarations.put(
            spec_of("acme", weight=3), PERSON, expected_generation=tenant.generation
        )


async def test_fifty_callers_that_declare_one_tenant_make_one(control: Control) -> None:
    answers = await asyncio.gather(
        *(control.declarations.put(spec_of("acme"), PERSON) for _ in range(50))
    )
    assert [created for _, created in answers].count(True) == 1
    assert await control.actions() == ["tenant.created"]


async def test_provisioning_twice_is_provisioning_once(control: Control) -> None:
    await control.declarations.put(spec_of("acme"), PERSON)
    first, objects = await control.provisioning.provision(control.state("acme"), PERSON)
    second, again = await control.provisioning.provision(control.state("acme"), PERSON)
    assert objects == again == ["role tenant_acme", "schema tenant_acme"]
    assert first.provisioned_at == second.provisioned_at
    assert await control.actions() == ["tenant.created", "tenant.provisioned"]


async def test_a_pool_is_opened_and_warmed_by_its_declaration(control: Control) -> None:
    await control.tenant("acme")
    outcome = await control.pool_changes.put(
        control.state("acme"), PoolChange(min_size=2, max_size=4, warmup_size=2), PERSON
    )
    assert outcome.created
    assert outcome.pool is not None
    assert outcome.pool.state is PoolState.READY
    assert outcome.pool.metrics.idle_connections == 2


async def test_a_resize_reaches_the_open_pool_at_once(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_changes.put(control.state("acme"), PoolChange(max_size=4), PERSON)
    outcome = await control.pool_changes.put(control.state("acme"), PoolChange(max_size=9), PERSON)
    assert not outcome.created
    assert outcome.pool is not None
    assert outcome.pool.size == PoolSize(max_size=9)
    assert await control.actions(pool="acme") == ["pool.declared", "pool.resized"]


async def test_a_smaller_maximum_takes_the_minimum_down_with_it(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_changes.put(
        control.state("acme"), PoolChange(min_size=4, max_size=4), PERSON
    )
    outcome = await control.pool_changes.put(control.state("acme"), PoolChange(max_size=2), PERSON)
    assert outcome.desired.size == PoolSize(min_size=2, max_size=2)


async def test_sizes_that_contradict_each_other_are_refused(control: Control) -> None:
    await control.tenant("acme")
    with pytest.raises(InvalidInput):
        await control.pool_changes.put(
            control.state("acme"), PoolChange(min_size=6, max_size=4), PERSON
        )


async def test_a_pool_waits_for_provisioning(control: Control) -> None:
    await control.declarations.put(spec_of("acme"), PERSON)
    with pytest.raises(NotProvisioned):
        await control.pool_changes.put(control.state("acme"), PoolChange(), PERSON)


async def test_minimums_beyond_the_budget_are_refused_with_the_numbers(control: Control) -> None:
    budget = control.manager.servers["local"].budget.limit
    await control.tenant("acme")
    await control.tenant("beta")
    await control.pool_changes.put(
        control.state("acme"),
        PoolChange(min_size=budget - 1, max_size=budget, warmup_size=0),
        PERSON,
    )
    with pytest.raises(BudgetExceeded, match=f"{budget - 1} of the server's {budget}"):
        await control.pool_changes.put(control.state("beta"), PoolChange(min_size=2), PERSON)
    assert "beta" not in control.manager.desired


async def test_a_shared_pool_is_confirmed_freely_and_resized_only_as_a_whole(
    control: Control,
) -> None:
    await control.tenant("acme", PoolStrategy.SHARED)
    await control.tenant("beta", PoolStrategy.SHARED)
    first = await control.pool_changes.put(control.state("acme"), PoolChange(), PERSON)
    second = await control.pool_changes.put(control.state("beta"), PoolChange(), PERSON)
    assert first.pool is second.pool
    assert (first.created, second.created) == (True, False)
    with pytest.raises(PoolIsShared):
        await control.pool_changes.put(control.state("acme"), PoolChange(max_size=7), PERSON)
    whole = await control.pool_changes.put(
        control.state("acme"), PoolChange(max_size=7), PERSON, whole_pool=True
    )
    assert whole.tenants == 2
    assert whole.desired.size.max_size == 7


async def test_a_pause_is_remembered_by_a_pool_that_opens_later(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_changes.pause(control.state("acme"), PERSON, paused=True)
    outcome = await control.pool_changes.put(control.state("acme"), PoolChange(), PERSON)
    assert outcome.pool is not None
    assert outcome.pool.state is PoolState.PAUSED
    resumed = await control.pool_changes.pause(control.state("acme"), PERSON, paused=False)
    assert resumed.pool is not None
    assert resumed.pool.state is PoolState.READY


async def test_a_deleted_tenant_is_gone_but_its_data_stays(control: Control) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme") as connection:
        await connection.execute("create table kept as select 1 as one")
    deletion = await control.deletions.delete(control.state("acme"), PERSON, deadline=1)
    assert deletion.login_disabled
    assert deletion.eviction is not None
    assert deletion.eviction.closed == 1
    with pytest.raises(TenantNotFound):
        control.manager.tenant_state("acme")
    async with control.manager.servers["local"].admin() as admin:
        assert await admin.fetchval('select one from "tenant_acme".kept') == 1
        assert not await admin.fetchval(
            "select rolcanlogin from pg_roles where rolname = 'tenant_acme'"
        )
    assert (await control.actions())[-2:] == ["tenant.deleting", "tenant.deleted"]


async def test_everything_stored_is_known_again_after_a_restart(control: Control) -> None:
    await control.tenant("acme", weight=3)
    await control.pool_changes.put(control.state("acme"), PoolChange(max_size=9), PERSON)
    known, wanted = dict(control.manager.tenant_states), dict(control.manager.desired)
    for tenant_id in known:
        control.manager.remove_tenant(tenant_id)
        control.manager.clear_desired(tenant_id)
    await control.load()
    assert control.manager.tenant_state("acme").tenant == known["acme"].tenant
    assert control.manager.desired == wanted


async def test_nothing_is_changed_while_the_catalog_is_away(control: Control) -> None:
    await control.tenant("acme")
    control.proxy.refuse()
    await control.proxy.reset()
    with pytest.raises(CatalogUnavailable):
        await control.declarations.put(spec_of("beta"), PERSON)
    with pytest.raises(CatalogUnavailable):
        await control.pool_changes.put(control.state("acme"), PoolChange(max_size=9), PERSON)
    assert "beta" not in control.manager.tenant_states
    assert "acme" not in control.manager.desired


async def test_a_wish_kept_in_an_outage_goes_with_its_tenant(control: Control) -> None:
    await control.tenant("acme")
    control.proxy.refuse()
    await control.proxy.reset()
    await control.pool_changes.pause(control.state("acme"), PERSON, paused=True)
    await control.proxy.pass_through()
    await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    assert (await control.reconciler.run_once()).changes_saved == 0
    assert await control.catalog.pools.load() == ()


async def test_a_pool_is_not_resized_for_a_tenant_that_is_gone(control: Control) -> None:
    await control.tenant("acme")
    account = control.manager.tenant_state("acme")
    await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    with pytest.raises(TenantDeleting):
        await control.pool_changes.resize(account, 7, PERSON, reason="advice")
    await control.desired_pool_state.release_min_size(account, PERSON)
    assert await control.catalog.pools.load() == ()


async def test_two_minimums_at_once_cannot_both_take_the_last_of_the_budget(
    control: Control,
) -> None:
    control.manager.servers["local"].budget.set_limit(4)
    await control.tenant("acme")
    await control.tenant("beta")
    answers = await asyncio.gather(
        *(
            control.pool_changes.put(
                control.state(name), PoolChange(min_size=3, max_size=3), PERSON
            )
            for name in ("acme", "beta")
        ),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers].count(BudgetExceeded) == 1
    assert len(control.manager.desired) == 1


async def test_provisioning_that_takes_too_long_may_be_tried_again(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.declarations.put(spec_of("acme"), PERSON)
    with monkeypatch.context() as patched:
        patched.setattr(provisioning, "_PROVISION_DEADLINE", 0.0)
        with pytest.raises(ServerUnavailable):
            await control.provisioning.provision(control.state("acme"), PERSON)
    await control.provisioning.provision(control.state("acme"), PERSON)


async def test_a_tenant_of_an_undeclared_server_can_be_deleted(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    with monkeypatch.context() as patched:
        patched.setattr(control.manager, "servers", {})
        deletion = await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    assert not deletion.login_disabled
    assert await control.catalog.tenants.load() == ()


async def test_a_draining_pool_is_not_declared_until_it_is_closed(control: Control) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        pool = await control.pool_operations.drain(control.state("acme"), PERSON, deadline=5)
        await eventually(lambda: pool.is_closing)
        with pytest.raises(PoolDraining):
            await control.pool_changes.put(control.state("acme"), PoolChange(max_size=9), PERSON)
    assert "acme" not in control.manager.desired


async def test_a_change_does_not_wait_for_ever_for_another(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    monkeypatch.setattr(locks, "_HOLD_DEADLINE", 0.0)
    async with control.locks.hold("acme"):
        with pytest.raises(Unavailable, match="Another change of acme"):
            await control.declarations.put(spec_of("acme", weight=2), PERSON)
    await control.declarations.put(spec_of("acme", weight=2), PERSON)


async def test_a_deletion_tells_what_it_closed(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_changes.put(control.state("acme"), PoolChange(min_size=1), PERSON)
    await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    [event] = await control.catalog.audit_log.page(action="tenant.deleted")
    assert event.after == {"closed": 1, "cut": 0}


async def test_adopting_what_exists_is_told_every_time(control: Control) -> None:
    await control.tenant("acme")
    await control.provisioning.provision(control.state("acme"), PERSON, adopt=True)
    assert (await control.actions()).count("tenant.provisioned") == 2


async def test_the_log_says_each_change_once(control: Control) -> None:
    with structlog.testing.capture_logs() as logged:
        await control.tenant("acme")
        for _ in range(2):
            await control.pool_changes.put(control.state("acme"), PoolChange(max_size=3), PERSON)
        await control.pool_operations.recycle(control.state("acme"), PERSON)
    done = [entry for entry in logged if entry["event"] == "change applied"]
    assert [(entry["log_level"], entry["action"]) for entry in done] == [
        ("info", "tenant.created"),
        ("info", "tenant.provisioned"),
        ("info", "pool.declared"),
        ("info", "pool.recycled"),
    ]
    assert {(entry["tenant"], entry["actor"]) for entry in done} == {("acme", PERSON.name)}
