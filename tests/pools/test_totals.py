"""Counters by server and strategy: nothing is counted twice, nothing is lost, none decreases."""

from dataclasses import replace
from time import monotonic

from app.domain.counters import Counters
from app.domain.tenant import PoolStrategy
from app.pools.tenant_state import TenantState
from app.pools.totals import CounterTotals
from tests.domain.values import account as shared_account

OWN = ("local", PoolStrategy.PER_TENANT)
SHARED = ("local", PoolStrategy.SHARED)


def own(metrics: CounterTotals) -> TenantState:
    """A tenant with a pool of its own, counted in *metrics*."""
    tenant = shared_account().tenant
    spec = replace(tenant.spec, strategy=PoolStrategy.PER_TENANT)
    return TenantState(replace(tenant, spec=spec), metrics.recorder_for(spec))


def lease(account: TenantState, now: float, *, hold: float = 0.3) -> None:
    account.recorder.record_acquire(0.1, now)
    account.recorder.record_release(hold, now + hold)


def test_what_a_deleted_tenant_did_stays_counted() -> None:
    metrics = CounterTotals(10.0)
    acme = own(metrics)
    lease(acme, 100.0)
    acme.recorder.record_connect(0.02, 100.0)
    metrics.add_deleted(acme)
    totals = metrics.totals()
    assert totals.counters[OWN].connections_acquired == 1
    assert totals.counters[OWN].hold_seconds == 0.3
    assert totals.counters[OWN].connect_seconds == 0.02
    assert totals.durations[OWN].hold.count == 1


def test_a_tenant_deleted_while_it_is_counted_counts_once() -> None:
    metrics = CounterTotals(10.0)
    acme = own(metrics)
    lease(acme, 100.0)
    before = metrics.totals()
    before.add(acme)
    totals = metrics.totals()
    metrics.add_deleted(acme)
    totals.add(acme)
    totals.complete(before)
    assert totals.counters[OWN].connections_acquired == 1
    assert totals.durations[OWN].wait.count == 1
    assert metrics.totals().durations[OWN].wait.count == 1


def test_a_slice_that_ends_while_it_is_counted_makes_nothing_fall() -> None:
    metrics = CounterTotals(10.0)
    acme = own(metrics)
    for _ in range(2):
        lease(acme, 100.0)
    before = metrics.totals()
    before.add(acme)
    totals = metrics.totals()
    lease(acme, 105.0)
    totals.add(acme)
    totals.complete(before)
    assert totals.durations[OWN].hold.count == 2
    after = metrics.totals()
    after.add(acme)
    assert after.durations[OWN].hold.count == 3


def test_completed_totals_stay_as_they_are() -> None:
    metrics = CounterTotals(10.0)
    acme = own(metrics)
    lease(acme, 100.0)
    totals = metrics.totals()
    totals.add(acme)
    totals.complete(None)
    lease(acme, 101.0)
    later = metrics.totals()
    later.add(acme)
    later.complete(totals)
    assert totals.counters[OWN].connections_acquired == 1
    assert later.counters[OWN].connections_acquired == 2
    assert later.counters[OWN].hold_seconds == 0.6


def test_a_group_has_zeros_before_its_first_lease() -> None:
    metrics = CounterTotals(10.0)
    own(metrics)
    metrics.recorder_for(shared_account().tenant.spec)
    assert metrics.totals().counters == {OWN: Counters(), SHARED: Counters()}


def test_a_shared_pools_leases_are_not_counted_for_its_tenants_too() -> None:
    metrics = CounterTotals(10.0)
    tenant = shared_account().tenant
    acme = TenantState(tenant, metrics.recorder_for(tenant.spec))
    pool = metrics.shared_recorder("local")
    for recorder in (pool, acme.recorder):
        recorder.record_acquire(0.1, monotonic())
    totals = metrics.totals()
    totals.add(acme)
    assert metrics.shared_recorder("local") is pool
    assert totals.counters[SHARED].connections_acquired == 1
    assert totals.durations[SHARED].wait.count == 1
    metrics.add_deleted(acme)
    assert metrics.totals().counters[SHARED].connections_acquired == 1
