"""Declarations: stored with their event, then known to the manager."""

import asyncio

import pytest
import structlog

from app.control import keyed_locks
from app.domain.desired_pool import PoolChange
from app.domain.errors import (
    CatalogUnavailable,
    ImmutableField,
    ServerNotFound,
    StaleVersion,
    Unavailable,
)
from app.domain.tenant import PoolStrategy, Tenant
from tests.fixtures.control import PERSON, Control, spec_of
from tests.fixtures.pools import tenant
from tests.fixtures.turns import counted_turns


async def test_a_new_tenant_is_stored_known_and_recorded(control: Control) -> None:
    tenant, created = await control.declare(spec_of("acme"))
    assert created
    assert control.manager.tenants.state("acme").tenant == tenant
    assert await control.catalog.tenants.load() == (tenant,)
    [event] = await control.catalog.audit_log.page()
    assert (event.action, event.tenant, event.actor) == ("tenant.created", "acme", PERSON)


async def test_the_same_declaration_again_changes_and_records_nothing(control: Control) -> None:
    first, _ = await control.declare(spec_of("acme"))
    second, created = await control.declare(spec_of("acme"))
    assert not created
    assert second.generation == first.generation
    assert await control.actions() == ["tenant.created"]


async def test_server_and_strategy_of_a_tenant_never_change(control: Control) -> None:
    await control.declare(spec_of("acme"))
    with pytest.raises(ImmutableField):
        await control.declare(spec_of("acme", PoolStrategy.SHARED))


async def test_an_undeclared_server_is_refused(control: Control) -> None:
    with pytest.raises(ServerNotFound):
        await control.declare(spec_of("acme", server="elsewhere"))


async def test_a_stale_generation_is_refused(control: Control) -> None:
    tenant, _ = await control.declare(spec_of("acme"))
    await control.declare(spec_of("acme", weight=2), expect=lambda _: tenant.generation)
    with pytest.raises(StaleVersion):
        await control.declare(spec_of("acme", weight=3), expect=lambda _: tenant.generation)


async def test_fifty_callers_that_declare_one_tenant_make_one(control: Control) -> None:
    answers = await asyncio.gather(*(control.declare(spec_of("acme")) for _ in range(50)))
    assert [created for _, created in answers].count(True) == 1
    assert await control.actions() == ["tenant.created"]


async def test_everything_stored_is_known_again_after_a_restart(control: Control) -> None:
    await control.tenant("acme", weight=3)
    await control.pool_operations.put(control.state("acme"), PoolChange(max_size=9), PERSON)
    known, wanted = dict(control.manager.tenants), dict(control.manager.desired)
    for tenant_id in known:
        control.manager.tenants.forget(tenant_id)
        control.manager.desired.forget(tenant_id)
    await control.load()
    assert control.manager.tenants.state("acme").tenant == known["acme"].tenant
    assert control.manager.desired == wanted


async def test_nothing_is_changed_while_the_catalog_is_away(control: Control) -> None:
    await control.tenant("acme")
    await control.proxy.cut()
    with pytest.raises(CatalogUnavailable):
        await control.declare(spec_of("beta"))
    with pytest.raises(CatalogUnavailable):
        await control.pool_operations.put(control.state("acme"), PoolChange(max_size=9), PERSON)
    assert "beta" not in control.manager.tenants
    assert "acme" not in control.manager.desired


async def test_a_change_does_not_wait_for_ever_for_another(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    monkeypatch.setattr(keyed_locks, "_HOLD_DEADLINE", 0.0)
    async with control.locks.hold("acme"):
        with pytest.raises(Unavailable, match="Another change of acme"):
            await control.declare(spec_of("acme", weight=2))
    await control.declare(spec_of("acme", weight=2))


async def test_the_log_says_each_change_once(control: Control) -> None:
    with structlog.testing.capture_logs() as logged:
        await control.tenant("acme")
        for _ in range(2):
            await control.pool_operations.put(control.state("acme"), PoolChange(max_size=3), PERSON)
        await control.pool_operations.recycle(control.state("acme"), PERSON)
    done = [entry for entry in logged if entry["event"] == "change applied"]
    assert [(entry["log_level"], entry["action"]) for entry in done] == [
        ("info", "tenant.created"),
        ("info", "tenant.provisioned"),
        ("info", "pool.declared"),
        ("info", "pool.recycled"),
    ]
    assert {(entry["tenant"], entry["actor"]) for entry in done} == {("acme", PERSON.name)}


async def test_others_have_their_turn_while_a_new_leader_learns_of_all_tenants(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tuple(tenant(f"t{number}", PoolStrategy.PER_TENANT) for number in range(350))

    async def load() -> tuple[Tenant, ...]:
        return known

    monkeypatch.setattr(control.catalog.tenants, "load", load)
    async with counted_turns() as turns:
        monkeypatch.setattr(
            control.manager, "put_tenant", turns.counted(control.manager.put_tenant)
        )
        await control.declarations.load()
    assert len(control.manager.tenants) == turns.calls == len(known)
    assert turns.most <= 100
