"""A tenant's state: its use, its cap, its share among those who ask, and what it shows."""

from dataclasses import replace
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.time_sharing import MEMORY
from app.pools.recent_use import Contenders
from app.pools.recorder import Recorder
from app.pools.tenant_state import TenantState
from tests.domain.values import account, metrics


class Unplaced:
    """A line of one caller, in no queue."""

    waiting = 1

    def note_change(self) -> None:
        """Do nothing."""


UNPLACED = Unplaced()


def contending(weight: int, contenders: Contenders) -> TenantState:
    """A tenant of that *weight* on the server of these *contenders*."""
    return TenantState(account(weight=weight).tenant, Recorder(), contenders)


def reweighted(state: TenantState, weight: int) -> None:
    state.update(replace(state.tenant, spec=replace(state.tenant.spec, weight=weight)))


def test_what_was_used_decides_between_tenants_that_hold_nothing() -> None:
    often, seldom, never = account("often"), account("seldom"), account("never")
    for now in (10.0, 20.0, 30.0):
        often.lease_begun(0.0, now)
        often.lease_ended(1.0, now + 1)
    seldom.lease_begun(0.0, 25.0)
    seldom.lease_ended(2.0, 27.0)
    for state in (often, seldom, never):
        state.wait_begun(UNPLACED, 31.0)
    assert never.key(31.0) < seldom.key(31.0) < often.key(31.0)
    assert often.key(31.0) == often.key(1000.0)


def test_long_ago_counts_less_than_lately() -> None:
    lately, before = account("lately"), account("before")
    for state, begun in ((before, 10.0), (lately, 40.0)):
        state.lease_begun(0.0, begun)
        state.lease_ended(3.0, begun + 3)
        state.wait_begun(UNPLACED, 43.0)
    assert before.key(43.0) < lately.key(43.0)


def test_leases_count_the_same_however_many_they_are() -> None:
    many, one = account("many"), account("one")
    one.lease_begun(0.0, 100.0)
    for tenth in range(100):
        many.lease_begun(0.0, 100 + tenth / 10)
        many.lease_ended(0.1, 100 + (tenth + 1) / 10)
    one.lease_ended(10.0, 110.0)
    for state in (many, one):
        state.wait_begun(UNPLACED, 110.0)
    assert many.key(110.0) == pytest.approx(one.key(110.0), rel=1e-9)
    assert many.key(110.0) == pytest.approx(log(1 - exp(-10 / MEMORY)) + 110 / MEMORY, rel=1e-6)


def test_a_lease_counts_while_it_runs_and_the_more_the_longer() -> None:
    acme, beta = account("acme"), account("beta")
    acme.lease_begun(0.0, 10.0)
    beta.lease_begun(0.0, 10.5)
    for now in (10.5, 11.0, 100.0):
        assert beta.key(now) < acme.key(now)


def test_a_changed_weight_counts_at_once_for_what_was_used_before() -> None:
    acme, beta = account("acme"), account("beta")
    for state, until in ((acme, 13.0), (beta, 11.0)):
        state.lease_begun(0.0, 10.0)
        state.lease_ended(until - 10.0, until)
    assert beta.key(20.0) < acme.key(20.0)
    reweighted(acme, 4)
    assert acme.key(20.0) < beta.key(20.0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, 5))))
def test_contenders_weigh_what_those_weigh_who_hold_or_wait(
    events: list[tuple[int, int, int]],
) -> None:
    contenders = Contenders()
    states = [contending(weight, contenders) for weight in (1, 2, 5)]
    for who, what, weight in events:
        state = states[who]
        if what == 0:
            state.lease_begun(0.0, 0.0)
        elif what == 1 and state.leased:
            state.lease_ended(0.0, 0.0)
        elif what == 2 and not state.waiting:
            state.wait_begun(UNPLACED, 0.0)
        elif what == 3 and state.waiting:
            state.wait_ended(UNPLACED)
        elif what == 4:
            reweighted(state, weight)
        asking = [state for state in states if state.leased or state.waiting]
        assert contenders.weight == sum(state.tenant.spec.weight for state in asking)


def test_it_contends_once_while_callers_wait_in_a_pool_and_in_the_one_that_replaces_it() -> None:
    contenders, old, new = Contenders(), Unplaced(), Unplaced()
    state = contending(3, contenders)
    state.wait_begun(old, 0.0)
    state.wait_begun(new, 0.0)
    assert contenders.weight == 3
    state.wait_ended(old)
    assert (contenders.weight, state.waiting) == (3, 1)
    state.wait_ended(new)
    assert (contenders.weight, state.waiting) == (0, 0)


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
    acme.leased = 3
    acme.wait_begun(UNPLACED, 0.0)
    assert acme.metrics == metrics(3, 0, 1)


@pytest.mark.parametrize(
    ("leased", "waits", "is_active"), [(0, False, False), (1, False, True), (0, True, True)]
)
def test_a_tenant_that_holds_or_waits_is_active(
    leased: int, *, waits: bool, is_active: bool
) -> None:
    acme = account()
    acme.leased = leased
    if waits:
        acme.wait_begun(UNPLACED, 0.0)
    assert acme.is_active(since=0.0) is is_active


def test_a_tenant_stays_active_for_a_while_after_its_last_lease() -> None:
    acme = account()
    acme.recorder.record_acquire(0.0, 100.0)
    acme.recorder.record_release(5.0, 105.0)
    assert acme.is_active(since=104.0)
    assert not acme.is_active(since=105.0)
