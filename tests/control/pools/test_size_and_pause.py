"""Changes of pools: recorded with their event, then carried out."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from app.control.pools import role_limits
from app.domain.desired_pool import PoolChange
from app.domain.errors import (
    BudgetExceeded,
    InvalidInput,
    NotProvisioned,
    PoolDraining,
    PoolIsShared,
    PoolPaused,
    TenantDeleting,
)
from app.domain.pool import PoolSize, PoolState
from app.domain.tenant import PoolStrategy
from app.pools.isolation.repair import Repair
from app.pools.servers.server import Server
from tests.fixtures.control import PERSON, Control, spec_of
from tests.fixtures.pools import pool_of
from tests.fixtures.waiting import eventually


async def test_a_pool_is_opened_and_warmed_by_its_declaration(control: Control) -> None:
    await control.tenant("acme")
    outcome = await control.pool_operations.put(
        control.state("acme"), PoolChange(min_size=2, max_size=4, warmup_size=2), PERSON
    )
    assert outcome.created
    assert outcome.pool is not None
    assert outcome.pool.state is PoolState.READY
    assert outcome.pool.metrics.idle_connections == 2


async def test_a_resize_reaches_the_open_pool_at_once(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(control.state("acme"), PoolChange(max_size=4), PERSON)
    outcome = await control.pool_operations.put(
        control.state("acme"), PoolChange(max_size=9), PERSON
    )
    assert not outcome.created
    assert outcome.pool is not None
    assert outcome.pool.size == PoolSize(max_size=9)
    assert await control.actions(pool="acme") == ["pool.declared", "pool.resized"]


async def test_a_smaller_maximum_takes_the_minimum_down_with_it(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(
        control.state("acme"), PoolChange(min_size=4, max_size=4), PERSON
    )
    outcome = await control.pool_operations.put(
        control.state("acme"), PoolChange(max_size=2), PERSON
    )
    assert outcome.desired.size == PoolSize(min_size=2, max_size=2)


async def test_sizes_that_contradict_each_other_are_refused(control: Control) -> None:
    await control.tenant("acme")
    with pytest.raises(InvalidInput):
        await control.pool_operations.put(
            control.state("acme"), PoolChange(min_size=6, max_size=4), PERSON
        )


async def test_a_pool_waits_for_provisioning(control: Control) -> None:
    await control.declare(spec_of("acme"))
    with pytest.raises(NotProvisioned):
        await control.pool_operations.put(control.state("acme"), PoolChange(), PERSON)


async def test_minimums_beyond_the_budget_are_refused_with_the_numbers(control: Control) -> None:
    budget = control.manager.servers["local"].budget.limit
    await control.tenant("acme")
    await control.tenant("beta")
    await control.pool_operations.put(
        control.state("acme"),
        PoolChange(min_size=budget - 1, max_size=budget, warmup_size=0),
        PERSON,
    )
    with pytest.raises(BudgetExceeded, match=f"{budget - 1} of the server's {budget}"):
        await control.pool_operations.put(control.state("beta"), PoolChange(min_size=2), PERSON)
    assert "beta" not in control.manager.desired


async def test_a_shared_pool_is_confirmed_freely_and_resized_only_as_a_whole(
    control: Control,
) -> None:
    await control.tenant("acme", PoolStrategy.SHARED)
    await control.tenant("beta", PoolStrategy.SHARED)
    first = await control.pool_operations.put(control.state("acme"), PoolChange(), PERSON)
    second = await control.pool_operations.put(control.state("beta"), PoolChange(), PERSON)
    assert first.pool is second.pool
    assert (first.created, second.created) == (True, False)
    with pytest.raises(PoolIsShared):
        await control.pool_operations.put(control.state("acme"), PoolChange(max_size=7), PERSON)
    whole = await control.pool_operations.put(
        control.state("acme"), PoolChange(max_size=7), PERSON, whole_pool=True
    )
    assert whole.desired.size.max_size == 7


async def test_a_pause_is_remembered_by_a_pool_that_opens_later(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.pause(control.state("acme"), PERSON, paused=True)
    outcome = await control.pool_operations.put(control.state("acme"), PoolChange(), PERSON)
    assert outcome.pool is not None
    assert outcome.pool.state is PoolState.PAUSED
    resumed = await control.pool_operations.pause(control.state("acme"), PERSON, paused=False)
    assert resumed.pool is not None
    assert resumed.pool.state is PoolState.READY


async def test_a_tenant_paused_before_it_is_provisioned_serves_nobody_afterwards(
    control: Control,
) -> None:
    await control.declare(spec_of("acme"))
    await control.pool_operations.pause(control.state("acme"), PERSON, paused=True)
    await control.provisioning.provision(control.state("acme"), PERSON)
    with pytest.raises(PoolPaused):
        async with control.manager.lease("acme", timeout=0.1):
            pass
    await control.pool_operations.pause(control.state("acme"), PERSON, paused=False)
    async with control.manager.lease("acme") as connection:
        assert await connection.fetchval("select 1") == 1


async def test_a_pool_is_not_paused_for_a_tenant_that_is_being_deleted(control: Control) -> None:
    tenant = await control.tenant("acme")
    control.manager.put_tenant(replace(tenant, deleting=True))
    with pytest.raises(TenantDeleting):
        await control.pool_operations.pause(control.state("acme"), PERSON, paused=True)


async def test_a_pool_is_not_resized_for_a_tenant_that_is_gone(control: Control) -> None:
    await control.tenant("acme")
    state = control.manager.tenants.state("acme")
    await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    with pytest.raises(TenantDeleting):
        await control.pool_operations.put(state, PoolChange(max_size=7), PERSON)
    assert await control.catalog.pools.load() == ()


async def test_two_minimums_at_once_cannot_both_take_the_last_of_the_budget(
    control: Control,
) -> None:
    control.manager.servers["local"].budget.set_limit(4)
    await control.tenant("acme")
    await control.tenant("beta")
    answers = await asyncio.gather(
        *(
            control.pool_operations.put(
                control.state(name), PoolChange(min_size=3, max_size=3), PERSON
            )
            for name in ("acme", "beta")
        ),
        return_exceptions=True,
    )
    assert [type(response) for response in answers].count(BudgetExceeded) == 1
    assert len(control.manager.desired) == 1


async def test_a_draining_pool_is_not_declared_until_it_is_closed(control: Control) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        pool = pool_of(control.manager, "acme")
        await control.pool_operations.drain(control.state("acme"), PERSON, deadline=5)
        await eventually(lambda: pool.is_closing)
        with pytest.raises(PoolDraining):
            await control.pool_operations.put(control.state("acme"), PoolChange(max_size=9), PERSON)
    assert "acme" not in control.manager.desired


async def test_a_role_limit_that_postgres_refuses_fails_no_resize(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")

    async def refused(_: Server, repairs: Sequence[Repair]) -> Sequence[Repair]:
        return repairs

    with monkeypatch.context() as patched, capture_logs() as logged:
        patched.setattr(role_limits, "repair", refused)
        outcome = await control.pool_operations.put(
            control.state("acme"), PoolChange(max_size=7), PERSON
        )
    assert outcome.pool is not None
    assert outcome.pool.size.max_size == 7
    assert [one["role"] for one in logged if one["event"] == "connection limit not set"] == [
        "tenant_acme"
    ]
