"""A tenant's account: its share of a shared pool, its cap, and what it shows."""

import pytest

from tests.domain.values import account, metrics


@pytest.mark.parametrize(
    ("leased", "weight", "share", "with_one_more"),
    [(0, 1, 0.0, 1.0), (3, 1, 3.0, 4.0), (3, 2, 1.5, 2.0), (0, 1000, 0.0, 0.001)],
)
def test_a_share_is_what_is_leased_by_weight(
    leased: int, weight: int, share: float, with_one_more: float
) -> None:
    acme = account(weight=weight)
    acme.leased = leased
    assert (acme.share, acme.share_with(1)) == (share, with_one_more)


@pytest.mark.parametrize(
    ("leased", "max_leases", "may_lease"),
    [(0, None, True), (999, None, True), (0, 1, True), (1, 1, False), (2, 3, True), (4, 3, False)],
)
def test_a_tenant_may_lease_up_to_its_own_cap(
    leased: int, max_leases: int | None, *, may_lease: bool
) -> None:
    acme = account(max_leases=max_leases)
    acme.leased = leased
    assert acme.can_lease is may_lease


def test_inside_a_shared_pool_only_the_leased_connections_are_its_own() -> None:
    acme = account()
    acme.leased, acme.waiting = 3, 2
    assert acme.metrics == metrics(3, 0, 2)


@pytest.mark.parametrize(
    ("leased", "waiting", "is_active"), [(0, 0, False), (1, 0, True), (0, 1, True)]
)
def test_a_tenant_that_holds_or_waits_is_active(
    leased: int, waiting: int, *, is_active: bool
) -> None:
    acme = account()
    acme.leased, acme.waiting = leased, waiting
    assert acme.is_active(since=0.0) is is_active


def test_a_tenant_stays_active_for_a_while_after_its_last_lease() -> None:
    acme = account()
    acme.recorder.record_acquire(0.0, 100.0)
    acme.recorder.record_release(5.0, 105.0)
    assert acme.is_active(since=104.0)
    assert not acme.is_active(since=105.0)
