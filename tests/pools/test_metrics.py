"""What is counted by server and strategy: nothing twice, nothing lost, and nothing ever falls."""

from dataclasses import replace
from time import monotonic

from app.domain.tenant import PoolStrategy
from app.pools.metrics import ServiceMetrics
from app.pools.tenant_state import TenantState
from tests.domain.values import account as shared_account

OWN = ("local", PoolStrategy.PER_TENANT)
SHARED = ("local", PoolStrategy.SHARED)


def own(ledger: ServiceMetrics) -> TenantState:
    """A tenant with a pool of its own, counted in *ledger*."""
    tenant = shared_account().tenant
    spec = replace(tenant.spec, strategy=PoolStrategy.PER_TENANT)
    return TenantState(replace(tenant, spec=spec), ledger.recorder_for(spec))


def lease(account: TenantState, now: float, *, hold: float = 0.3) -> None:
    account.recorder.record_acquire(0.1, now)
    account.recorder.record_release(hold, now + hold)


def test_what_a_deleted_tenant_did_stays_counted() -> None:
    ledger = ServiceMetrics(10.0)
    acme = own(ledger)
    lease(acme, 100.0)
    acme.recorder.record_connect(0.02, 100.0)
    ledger.add_deleted(acme)
    count = ledger.totals()
    assert count.totals[OWN].acquired == 1
    assert count.totals[OWN].total_hold == 0.3
    assert count.totals[OWN].total_connect == 0.02
    assert count.durations[OWN].hold.count == 1


def test_a_tenant_deleted_while_it_is_counted_counts_once() -> None:
    ledger = ServiceMetrics(10.0)
    acme = own(ledger)
    lease(acme, 100.0)
    before = ledger.totals()
    before.add(acme)
    count = ledger.totals()
    ledger.add_deleted(acme)
    count.add(acme)
    count.keep_up_with(before)
    assert count.totals[OWN].acquired == 1
    assert count.durations[OWN].wait.count == 1
    assert ledger.totals().durations[OWN].wait.count == 1


def test_a_slice_that_ends_while_it_is_counted_makes_nothing_fall() -> None:
    ledger = ServiceMetrics(10.0)
    acme = own(ledger)
    for _ in range(2):
        lease(acme, 100.0)
    before = ledger.totals()
    before.add(acme)
    count = ledger.totals()
    lease(acme, 105.0)
    count.add(acme)
    count.keep_up_with(before)
    assert count.durations[OWN].hold.count == 2
    after = ledger.totals()
    after.add(acme)
    assert after.durations[OWN].hold.count == 3


def test_a_shared_pools_leases_are_not_counted_for_its_tenants_too() -> None:
    ledger = ServiceMetrics(10.0)
    tenant = shared_account().tenant
    acme = TenantState(tenant, ledger.recorder_for(tenant.spec))
    pool = ledger.shared_recorder("local")
    for recorder in (pool, acme.recorder):
        recorder.record_acquire(0.1, monotonic())
    count = ledger.totals()
    count.add(acme)
    assert ledger.shared_recorder("local") is pool
    assert count.totals[SHARED].acquired == 1
    assert count.durations[SHARED].wait.count == 1
    ledger.add_deleted(acme)
    assert ledger.totals().totals[SHARED].acquired == 1
