"""Evict, drain, recycle, check: executed at once and recorded, with or without the catalog."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from app.control.operation import Operation
from app.control.pools import pool_changes
from app.domain.desired_pool import PoolChange
from app.domain.errors import PoolDraining, PoolIsShared, PoolNotFound
from app.domain.eviction import EvictionReason
from app.domain.nodes.declaration import NodeSpec
from app.domain.tenant import PoolStrategy
from tests.fixtures.control import PERSON, Control
from tests.fixtures.pools import pool_of
from tests.fixtures.waiting import eventually


async def test_a_forced_eviction_cuts_what_still_runs_after_its_deadline(
    control: Control,
) -> None:
    await control.tenant("acme")
    entered = asyncio.Event()

    async def hold() -> None:
        async with control.manager.lease("acme") as connection:
            entered.set()
            await connection.execute("select pg_sleep(30)")

    holder = asyncio.create_task(hold())
    await entered.wait()
    report = await control.pool_operations.evict(control.state("acme"), PERSON, deadline=0)
    eviction = report.eviction
    assert (eviction.reason, eviction.closed, eviction.cut) == (EvictionReason.FORCED, 1, 1)
    await asyncio.wait({holder}, timeout=180)
    assert holder.exception() is not None
    assert control.manager.find("acme") is None
    assert (await control.actions())[-1] == "pool.evicted"


@pytest.mark.parametrize("deadline", [0.0, 1.0])
async def test_an_evicted_pool_keeps_its_desired_size_and_opens_at_its_next_use(
    control: Control, deadline: float
) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(control.state("acme"), PoolChange(min_size=2), PERSON)
    declared = control.manager.desired["acme"]
    await control.pool_operations.evict(control.state("acme"), PERSON, deadline=deadline)
    assert control.manager.desired["acme"] == declared
    assert (await control.reconciler.run_once()).steps == 0
    assert control.manager.find("acme") is None
    async with control.manager.lease("acme"):
        pass
    pool = pool_of(control.manager, "acme")
    await eventually(lambda: pool.metrics.total_connections == 2)
    # It was used, so it is kept again as declared: without its pool, the next tick opens it.
    assert (await control.reconciler.run_once()).steps == 0
    await control.manager.evict(pool, EvictionReason.IDLE, 0)
    assert (await control.reconciler.run_once()).steps == 1


async def test_a_graceful_eviction_is_not_called_forced(control: Control) -> None:
    await control.tenant("acme")
    for deadline, reason in [(1.0, EvictionReason.REQUESTED), (0.0, EvictionReason.FORCED)]:
        async with control.manager.lease("acme"):
            pass
        report = await control.pool_operations.evict(
            control.state("acme"), PERSON, deadline=deadline
        )
        assert report.eviction.reason is reason


async def test_a_draining_pool_refuses_newcomers_and_serves_again_when_it_is_gone(
    control: Control,
) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        await control.pool_operations.drain(control.state("acme"), PERSON, deadline=5)
        await asyncio.sleep(0)
        with pytest.raises(PoolDraining):
            async with control.manager.lease("acme"):
                pass
    await eventually(lambda: control.manager.find("acme") is None)
    async with control.manager.lease("acme") as connection:
        assert await connection.fetchval("select 1") == 1
    assert control.manager.evictions[EvictionReason.DRAINED] == 1


async def test_recycling_counts_what_it_replaces(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(
        control.state("acme"), PoolChange(min_size=2, warmup_size=2), PERSON
    )
    report = await control.pool_operations.recycle(control.state("acme"), PERSON)
    assert (report.connections, report.nodes) == (2, {})


async def test_a_check_reports_what_it_tested_and_what_failed(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(control.state("acme"), PoolChange(), PERSON)
    report = await control.pool_operations.check(control.state("acme"), PERSON)
    assert (report.tested, report.failed) == (1, 0)


async def test_a_pool_that_is_not_open_cannot_be_operated(control: Control) -> None:
    await control.tenant("acme")
    with pytest.raises(PoolNotFound):
        await control.pool_operations.evict(control.state("acme"), PERSON, deadline=0)


@pytest.mark.parametrize("operation", ["recycle", "evict", "drain"])
async def test_a_tenant_of_nodes_is_recycled_there_whether_or_not_its_pool_is_open(
    control: Control, operation: str
) -> None:
    await control.tenant("acme")
    for name in ("edge", "west"):
        await control.node_declarations.put(NodeSpec(name=name), PERSON)
    nodes = control.fleet.nodes.values()
    operate: Callable[..., Operation[Any, Any]] = getattr(control.pool_operations, operation)
    if operation != "recycle":
        operate = partial(operate, deadline=0)
    latest = 0
    for _ in range(2):
        plan = await operate(control.state("acme"), PERSON).plan()
        assert "pool acme on nodes" in [step.target for step in plan.steps]
        report = await operate(control.state("acme"), PERSON)
        assert getattr(report, "nodes", {"edge": False, "west": False}) == {
            "edge": False,
            "west": False,
        }
        await control.node_feed.refresh()
        before, [latest] = latest, {node.entries["acme"].recycles for node in nodes}
        assert latest > before
        assert "pool.recycled_on_nodes" in await control.actions()
        async with control.manager.lease("acme"):
            pass
    # What nodes may have missed is asked of them by the next instance, too.
    [stored] = await control.catalog.pools.load()
    assert stored.recycles == latest


async def test_nodes_recycle_while_the_catalog_is_away_and_it_is_recorded_later(
    control: Control,
) -> None:
    await control.tenant("acme")
    await control.node_declarations.put(NodeSpec(name="edge"), PERSON)
    await control.proxy.cut()
    await control.pool_operations.recycle(control.state("acme"), PERSON)
    asked = control.fleet.nodes["edge"].entries["acme"].recycles
    assert asked
    await control.proxy.pass_through()
    await control.reconciler.run_once()
    [stored] = await control.catalog.pools.load()
    assert stored.recycles == asked
    assert "pool.recycled_on_nodes" in await control.actions()


async def test_no_recycling_has_the_number_of_one_that_was_not_stored(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that has already seen that number would do nothing."""
    await control.tenant("acme")
    await control.node_declarations.put(NodeSpec(name="edge"), PERSON)
    await control.proxy.cut()
    await control.pool_operations.recycle(control.state("acme"), PERSON)
    lost = control.manager.desired["acme"]
    await control.proxy.pass_through()
    # The next instance does not know it. Meanwhile, time has passed.
    control.manager.desired.forget("acme")
    monkeypatch.setattr(pool_changes, "_BEGINNING", pool_changes._BEGINNING - timedelta(seconds=1))
    await control.pool_operations.recycle(control.state("acme"), PERSON)
    assert control.manager.desired["acme"].recycles > lost.recycles


async def test_a_shared_pool_is_operated_only_as_a_whole(control: Control) -> None:
    await control.tenant("acme", PoolStrategy.SHARED)
    await control.pool_operations.put(control.state("acme"), PoolChange(), PERSON)
    with pytest.raises(PoolIsShared):
        await control.pool_operations.evict(control.state("acme"), PERSON, deadline=0)
    report = await control.pool_operations.evict(
        control.state("acme"), PERSON, deadline=0, whole_pool=True
    )
    assert report.eviction.pool_id == "shared@local"


async def test_a_sweep_says_why_it_left_a_pool_open(control: Control) -> None:
    for name in ("busy", "kept", "fresh"):
        await control.tenant(name)
    await control.pool_operations.put(control.state("kept"), PoolChange(min_size=1), PERSON)
    await control.pool_operations.put(control.state("fresh"), PoolChange(), PERSON)
    async with control.manager.lease("busy"):
        report = await control.pool_operations.evict_expired(PERSON)
    assert report.evicted == ()
    assert report.skipped == {
        "busy": "busy",
        "kept": "min_size",
        "fresh": "not_expired",
    }


async def test_operations_work_while_the_catalog_is_away_and_are_recorded_later(
    control: Control,
) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(control.state("acme"), PoolChange(min_size=1), PERSON)
    await control.proxy.cut()
    await control.pool_operations.recycle(control.state("acme"), PERSON)
    paused = await control.pool_operations.pause(control.state("acme"), PERSON, paused=True)
    assert paused.desired.paused
    await control.pool_operations.evict(control.state("acme"), PERSON, deadline=0)
    assert [event.action for event in control.audit_outbox.pending] == [
        "pool.recycled",
        "pool.paused",
        "pool.evicted",
    ]
    await control.proxy.pass_through()
    report = await control.reconciler.run_once()
    assert report.changes_saved == 1
    [stored] = await control.catalog.pools.load()
    assert (stored.paused, stored.size.min_size) == (True, 1)
    recorded = await control.actions(pool="acme")
    assert {"pool.recycled", "pool.evicted"} <= set(recorded)
    assert control.audit_outbox.pending == ()


async def test_an_eviction_is_recorded_even_if_its_caller_has_left(
    control: Control,
) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        caller = asyncio.create_task(
            control.pool_operations.evict(control.state("acme"), PERSON, deadline=5).run()
        )
        pool = pool_of(control.manager, "acme")
        await eventually(lambda: pool.is_closing)
        caller.cancel()
        await asyncio.wait({caller})
        assert caller.cancelled()
    await eventually(lambda: bool(control.audit_outbox.pending))
    [event] = control.audit_outbox.pending
    assert (event.action, event.reason, event.actor) == ("pool.evicted", "requested", PERSON)


async def test_a_drained_pool_records_what_it_closed(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(control.state("acme"), PoolChange(min_size=1), PERSON)
    await control.pool_operations.drain(control.state("acme"), PERSON, deadline=0)
    await eventually(lambda: control.manager.find("acme") is None)
    await control.reconciler.run_once()
    [event] = await control.catalog.audit_log.page(action="pool.evicted")
    assert (event.reason, event.after) == ("drained", {"closed": 1, "cut": 0})
