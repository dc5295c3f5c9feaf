"""A tenant's use: its mean number of connections, and the key by which tenants compare."""

from itertools import pairwise
from math import exp, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.time_sharing import MEMORY
from app.pools.recent_use import ConnectionUse, Contenders, uses_much_less

# Gaps in seconds, and how many connections were held in each.
histories = st.lists(st.tuples(st.floats(1e-4, 100), st.integers(0, 20)), min_size=1, max_size=30)


def used(history: list[tuple[float, int]], start: float = 0.0) -> tuple[ConnectionUse, float]:
    """The use after *history*, when all connections were given back, and the time of that."""
    usage, now = ConnectionUse(), start
    for seconds, leased in history:
        usage.note(0, now)
        usage.held += leased * seconds
        now += seconds
    usage.note(0, now)
    return usage, now


@given(histories)
def test_use_is_the_mean_of_what_was_held_with_decaying_weights(
    history: list[tuple[float, int]],
) -> None:
    usage, now = used(history)
    expected, age = 0.0, 0.0
    for seconds, leased in reversed(history):
        expected += leased * (exp(-age / MEMORY) - exp(-(age + seconds) / MEMORY))
        age += seconds
    assert usage.mean(0, now) == pytest.approx(expected, abs=1e-9)


def test_use_approaches_what_is_held_and_is_forgotten_in_time() -> None:
    usage = ConnectionUse()
    usage.held -= 4 * 5.0
    usage.note(4, 5.0)
    assert usage.mean(4, 5.0) < 1e-9
    assert usage.mean(4, 5.0 + MEMORY) == pytest.approx(4 * (1 - exp(-1)))
    now = 20 * MEMORY
    usage.note(4, now)
    assert usage.mean(4, now) == pytest.approx(4)
    usage.held += 4 * now
    assert usage.mean(0, now + MEMORY) == pytest.approx(4 / exp(1))


@given(histories, st.integers(1, 20), st.integers(1, 1000), st.lists(st.floats(0, 500)))
def test_a_key_grows_with_time_while_something_is_held(
    history: list[tuple[float, int]], leased: int, weight: int, later: list[float]
) -> None:
    usage, now = used(history)
    usage.held -= leased * now
    keys = [usage.key(leased, weight, now + after) for after in sorted(later)]
    assert all(one <= other for one, other in pairwise(keys))


@given(histories, histories, st.integers(1, 1000), st.integers(1, 1000), st.floats(0, 1000))
def test_the_order_of_tenants_that_hold_nothing_is_that_of_their_use_at_any_time(
    one: list[tuple[float, int]],
    other: list[tuple[float, int]],
    weight: int,
    other_weight: int,
    later: float,
) -> None:
    usage, ended = used(one)
    other_usage, other_ended = used(other)
    now = max(ended, other_ended)
    keys = usage.key(0, weight, now), other_usage.key(0, other_weight, now)
    now += later
    assert keys == (usage.key(0, weight, now), other_usage.key(0, other_weight, now))
    means = usage.mean(0, now) / weight, other_usage.mean(0, now) / other_weight
    if means[0] < means[1] * (1 - 1e-6):
        assert keys[0] < keys[1]
    if means[1] < means[0] * (1 - 1e-6):
        assert keys[1] < keys[0]


def test_a_tenant_without_history_goes_first_until_it_holds_something() -> None:
    fresh, (known, now) = ConnectionUse(), used([(1e-3, 1), (3600, 0)])
    assert fresh.key(0, 1, now) == -inf < known.key(0, 1, now)
    fresh.held -= now
    assert known.key(0, 1, now) < fresh.key(1, 1, now)


def test_each_running_lease_puts_a_tenant_further_back_at_once() -> None:
    usage, keys = ConnectionUse(), []
    for leased in range(5):
        keys.append(usage.key(leased, 1, 5.0))
        usage.held -= 5.0
    assert keys == sorted(set(keys))
    assert [ConnectionUse().key(0, 1, 5.0, more=more) for more in range(5)] == keys


def test_a_weight_divides_what_was_used() -> None:
    (heavy, now), (light, _) = used([(10, 3)]), used([(10, 1)])
    assert heavy.key(0, 3, now) == pytest.approx(light.key(0, 1, now))
    assert heavy.key(0, 4, now) < light.key(0, 1, now) < heavy.key(0, 2, now)


def test_keys_compare_after_years_of_uptime() -> None:
    years = 1e8
    (more, now), (less, _) = used([(1, 2)], start=years), used([(1, 1)], start=years)
    assert less.key(0, 1, now) < more.key(0, 1, now) < inf


def test_much_less_is_less_than_half() -> None:
    (half, now), (less, _), (whole, _) = (used([(1, leased)]) for leased in (5, 4, 10))
    fresh = ConnectionUse().key(0, 1, now)
    assert uses_much_less(less.key(0, 1, now), whole.key(0, 1, now))
    assert not uses_much_less(half.key(0, 1, now) + 1e-9, whole.key(0, 1, now))
    assert uses_much_less(fresh, less.key(0, 1, now))
    assert not uses_much_less(fresh, fresh)


def test_a_note_with_an_earlier_time_than_the_last_changes_nothing() -> None:
    usage, now = used([(10, 3)])
    before = usage.mean(0, now)
    usage.note(0, now - 1e9)
    assert usage.mean(0, now) == usage.mean(0, now - 1e9) == before


def test_a_fair_share_is_by_weight_among_those_who_ask() -> None:
    contenders = Contenders()
    assert contenders.fair_share(20) == inf
    contenders.weight += 8
    assert contenders.fair_share(20) == 2.5
