"""What is counted by server and strategy: nothing twice, nothing lost, and nothing ever falls."""

from dataclasses import replace
from time import monotonic

from app.domain.tenant import PoolStrategy
from app.pools.account import TenantAccount
from app.pools.ledger import Ledger
from tests.unit.values import account as shared_account

OWN = ("local", PoolStrategy.PER_TENANT)
SHARED = ("local", PoolStrategy.SHARED)


def own(ledger: Ledger) -> TenantAccount:
    """A tenant with a pool of its own, counted in *ledger*."""
    tenant = shared_account().tenant
    spec = replace(tenant.spec, strategy=PoolStrategy.PER_TENANT)
    return TenantAccount(replace(tenant, spec=spec), ledger.new(spec))


def lease(account: TenantAccount, now: float, *, hold: float = 0.3) -> None:
    account.recorder.lease_begun(0.1, now)
    account.recorder.lease_ended(hold, now + hold)


def test_what_a_deleted_tenant_did_stays_counted() -> None:
    ledger = Ledger(10.0)
    acme = own(ledger)
    lease(acme, 100.0)
    acme.recorder.connected(0.02, 100.0)
    ledger.forget(acme)
    count = ledger.count()
    assert count.totals[OWN].acquired == 1
    assert count.totals[OWN].total_hold == 0.3
    assert count.totals[OWN].total_connect == 0.02
    assert count.durations[OWN].hold.total == 1


def test_a_tenant_deleted_while_it_is_counted_counts_once() -> None:
    ledger = Ledger(10.0)
    acme = own(ledger)
    lease(acme, 100.0)
    before = ledger.count()
    before.add(acme)
    count = ledger.count()
    ledger.forget(acme)
    count.add(acme)
    count.keep_up_with(before)
    assert count.totals[OWN].acquired == 1
    assert count.durations[OWN].wait.total == 1
    assert ledger.count().durations[OWN].wait.total == 1


def test_a_slice_that_ends_while_it_is_counted_makes_nothing_fall() -> None:
    ledger = Ledger(10.0)
    acme = own(ledger)
    for _ in range(2):
        lease(acme, 100.0)
    before = ledger.count()
    before.add(acme)
    count = ledger.count()
    lease(acme, 105.0)
    count.add(acme)
    count.keep_up_with(before)
    assert count.durations[OWN].hold.total == 2
    after = ledger.count()
    after.add(acme)
    assert after.durations[OWN].hold.total == 3


def test_a_shared_pools_leases_are_not_counted_for_its_tenants_too() -> None:
    ledger = Ledger(10.0)
    tenant = shared_account().tenant
    acme = TenantAccount(tenant, ledger.new(tenant.spec))
    pool = ledger.of_shared_pool("local")
    for recorder in (pool, acme.recorder):
        recorder.lease_begun(0.1, monotonic())
    count = ledger.count()
    count.add(acme)
    assert ledger.of_shared_pool("local") is pool
    assert count.totals[SHARED].acquired == 1
    assert count.durations[SHARED].wait.total == 1
    ledger.forget(acme)
    assert ledger.count().totals[SHARED].acquired == 1
