"""The poller: one report per poll, samples stored, idle pools closed, outages survived."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from unittest.mock import AsyncMock

import pytest

from app.control import time_slices
from app.control.monitoring import poller
from app.domain.audit import POLLER
from app.domain.errors import ServerUnavailable
from app.domain.eviction import EvictionReason
from app.domain.history import SERVICE, on_nodes
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.report import EntryReport
from app.domain.pool import PoolState
from app.domain.tenant import PoolStrategy
from app.domain.usage_report import Grouping
from app.pools.manager import TenantPoolManager
from app.pools.registry import PoolRegistry
from app.pools.servers.server import Server
from app.pools.servers.server_limits import ServerLimits
from app.pools.tenant_state import TenantState
from tests.fixtures.control import PERSON, Control
from tests.fixtures.pools import pool_of
from tests.fixtures.reporting import entry
from tests.fixtures.turns import counted_turns
from tests.fixtures.waiting import eventually


@pytest.mark.parametrize("at_once", [50, 1])
async def test_a_poll_samples_open_pools_and_the_tenants_inside_a_shared_one(
    control: Control, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(time_slices, "_SLICE_SECONDS", -1.0 if at_once == 1 else 60.0)
    monkeypatch.setattr(poller, "_BATCH", 2 * at_once)
    await control.tenant("own")
    await control.tenant("guest", PoolStrategy.SHARED)
    await control.tenant("silent", PoolStrategy.SHARED)
    for name in ("own", "guest"):
        async with control.manager.lease(name) as connection:
            await connection.fetchval("select 1")
    report = await control.poller.run_once()
    assert (report.pools, report.samples_stored) == (2, 4)
    now = datetime.now(UTC)
    for subject, points in (("own", 1), ("guest", 1), ("shared@local", 1), ("silent", 0), ("@", 1)):
        history = await control.catalog.samples.query_history(
            subject, start=now - timedelta(minutes=1), end=now, step=60
        )
        assert sum(point.samples for point in history.points) == points


async def test_the_event_loop_has_its_turn_while_idle_tenants_are_passed_over(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        await control.tenant(f"t{number}", PoolStrategy.SHARED)
    async with counted_turns() as turns:
        monkeypatch.setattr(TenantState, "is_active", turns.counted(TenantState.is_active))
        await control.poller.run_once()
    # The sampler looks at each, and so does the advice on placement.
    assert (turns.calls, turns.most) == (8, 1)


@pytest.mark.parametrize("by_hand", [False, True])
async def test_the_event_loop_has_its_turn_while_many_idle_pools_close(
    control: Control, monkeypatch: pytest.MonkeyPatch, *, by_hand: bool
) -> None:
    for number in range(4):
        await control.tenant(f"t{number}")
        async with control.manager.lease(f"t{number}"):
            pass
    monkeypatch.setattr(PoolRegistry, "_is_expired", lambda *_: True)
    async with counted_turns() as turns:
        closed = turns.counted(TenantPoolManager._close_evicted)
        monkeypatch.setattr(TenantPoolManager, "_close_evicted", closed)
        for registry in control.manager._registries.values():
            evict = partial(TenantPoolManager._close_evicted, control.manager)
            monkeypatch.setattr(registry, "_evict", evict)
        if by_hand:
            assert len((await control.pool_operations.evict_expired(PERSON)).evicted) == 4
        else:
            assert (await control.poller.run_once()).pools_evicted == 4
    assert (turns.calls, turns.most) == (4, 1)
    evicted = await control.catalog.audit_log.page(action="pool.evicted")
    actor = PERSON if by_hand else POLLER
    assert [(each.pool, each.actor) for each in reversed(evicted)] == [
        (f"t{number}", actor) for number in range(4)
    ]


async def test_tenants_on_nodes_are_sampled_beside_their_pools(control: Control) -> None:
    await control.tenant("acme")

    def acme(transactions: int, *, in_use: int = 0) -> EntryReport:
        totals = EntryTotals(
            transactions=transactions,
            transaction_seconds=0.2 * transactions,
            wait_seconds=0.1 * transactions,
        )
        return entry("acme", in_use=in_use, waiting=4, totals=totals)

    for transactions in (1_000, 1_030):
        control.node_loads.hear("edge", [acme(transactions, in_use=2)], frozenset())
    await control.poller.run_once()
    # The connections stay, and nothing else happens: that is no other measurement.
    await control.poller.run_once()
    control.node_loads.hear("edge", [acme(1_050)], frozenset())
    await control.poller.run_once()
    await control.poller.finish()
    now = datetime.now(UTC)
    for subject in (on_nodes("acme"), on_nodes(SERVICE)):
        history = await control.catalog.samples.query_history(
            subject, start=now - timedelta(minutes=2), end=now, step=60
        )
        points = history.points
        samples = sum(point.samples for point in points)
        # The two that ran at the first report have ended, too.
        assert (sum(point.acquired for point in points), samples) == (50 + 2, 4)
        assert sum(point.connection_seconds for point in points) == pytest.approx(5.0)
        active = sum(point.active_connections * point.samples for point in points)
        assert active / samples == pytest.approx(1.0)
        for point in points:
            assert (point.total_connections, point.waiting_requests) == (3.0, 4.0)
            assert point.wait_p99_ms is not None
            assert point.wait_p99_ms > 100
    # Only those of this service's own pools are billed.
    assert await connection_seconds(control) == {}


async def connection_seconds(control: Control) -> dict[str | None, float]:
    """What is stored of the last hour, including the current minute, by tenant."""
    now = datetime.now(UTC)
    report = await control.catalog.usage_reports.make(
        start=now - timedelta(hours=1),
        end=now + timedelta(minutes=1),
        grouping=Grouping.TENANT,
        limit=10,
    )
    return {row.group: row.connection_seconds for row in report.groups}


@pytest.mark.parametrize("strategy", [PoolStrategy.PER_TENANT, PoolStrategy.SHARED])
async def test_running_leases_count_and_nothing_is_counted_twice(
    control: Control, strategy: PoolStrategy
) -> None:
    await control.tenant("acme", strategy)
    began = monotonic()
    async with control.manager.lease("acme"):
        await control.poller.run_once()
        first = (await connection_seconds(control))["acme"]
        await control.poller.run_once()
        await control.poller.run_once()
    await control.poller.finish()
    stored = (await connection_seconds(control))["acme"]
    recorder = control.state("acme").recorder
    assert 0 < first < stored <= monotonic() - began
    assert stored == pytest.approx(recorder.hold_seconds, abs=0.001)
    shared = control.manager.recorder(control.state("acme"))
    assert shared.hold_seconds == recorder.hold_seconds


async def test_use_of_a_pool_that_was_closed_before_the_poll_is_stored(control: Control) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        pass
    pool = pool_of(control.manager, "acme")
    await control.manager.evict(pool, EvictionReason.REQUESTED, 1.0)
    await control.poller.run_once()
    assert (await connection_seconds(control))["acme"] > 0


def expire_at_once(control: Control) -> None:
    """Evict pools as soon as nobody uses them."""
    registry = control.manager._registries[PoolStrategy.PER_TENANT]
    registry.config = replace(registry.config, idle_timeout=0.0)


async def test_an_idle_pool_is_closed_and_its_end_is_recorded(control: Control) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        pass
    expire_at_once(control)
    report = await control.poller.run_once()
    assert report.pools_evicted == 1
    assert control.manager.active_pools == 0
    assert control.manager.evictions[EvictionReason.IDLE] == 1
    [event, *_] = await control.catalog.audit_log.page()
    assert (event.action, event.reason, event.pool) == ("pool.evicted", "idle", "acme")


async def test_an_outage_of_a_server_is_two_events_and_its_pools_are_unavailable_in_between(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        pass
    server = control.manager.servers["local"]
    away = ServerUnavailable("It is away.")
    with monkeypatch.context() as patch:
        patch.setattr(server.admins, "open", AsyncMock(side_effect=away))
        server.mark_lost(away)
        await control.poller.run_once()
        await control.poller.run_once()
        snapshot = await control.snapshots.current()
        assert snapshot.pools["acme"].state is PoolState.UNAVAILABLE
        assert snapshot.tenants["acme"].pool_state is PoolState.UNAVAILABLE
    await eventually(lambda: server.is_available)
    await control.poller.run_once()
    assert control.manager.pool_state("acme") is PoolState.READY
    back, lost, *_ = await control.catalog.audit_log.page()
    assert (lost.action, lost.reason) == ("server.unavailable", "It is away.")
    assert (back.action, back.reason) == ("server.available", None)
    assert back.after == lost.after == {"name": "local"}


async def test_another_budget_of_a_server_is_an_event(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = control.manager.servers["local"]
    await control.poller.run_once()
    assert server.limits is not None
    before, fewer = server.limit, server.limits.max_connections - 10
    # Postgres was started again with another limit.
    other = replace(server.limits, max_connections=fewer)
    monkeypatch.setattr(ServerLimits, "read", AsyncMock(return_value=other))
    await server.refresh()
    for _ in range(2):
        await control.poller.run_once()
    [event] = await control.catalog.audit_log.page(action="server.budget_changed")
    assert event.before == {"name": "local", "budget": before}
    assert event.after == {"name": "local", "budget": before - 10, "max_connections": fewer}
    # Lost connections do not change it.
    monkeypatch.setattr(Server, "lost", property(lambda _: 3))
    await server.refresh()
    await control.poller.run_once()
    assert len(await control.catalog.audit_log.page(action="server.budget_changed")) == 1


async def test_an_outage_between_two_polls_is_recorded(control: Control) -> None:
    server = control.manager.servers["local"]
    server.mark_lost(ServerUnavailable("It is away."))
    await eventually(lambda: server.is_available)
    await control.poller.run_once()
    assert await control.actions() == ["server.unavailable", "server.available"]


async def test_a_poll_goes_on_without_the_catalog(control: Control) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        pass
    await control.proxy.cut()
    report = await control.poller.run_once()
    assert (report.pools, report.samples_stored) == (1, 0)
    await control.proxy.pass_through()
    assert (await control.poller.run_once()).samples_stored == 2


async def test_counters_survive_the_eviction_of_the_pool(control: Control) -> None:
    await control.tenant("acme")
    state = control.manager.tenants.state("acme")
    async with control.manager.lease("acme"):
        pass
    expire_at_once(control)
    await control.poller.run_once()
    stats = control.manager.tenant_stats(state)
    assert (stats.counters.connections_acquired, stats.counters.connections_released) == (1, 1)
    assert (stats.metrics.active_connections, stats.metrics.idle_connections) == (0, 0)
