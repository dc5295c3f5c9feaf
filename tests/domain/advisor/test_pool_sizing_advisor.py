"""The advisor of one pool: the published cases, and what it remembers between samples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisor import (
    PoolPressureMonitorConfig,
    PoolSizingAdvisor,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
)
from app.domain.pool import PoolMetrics
from tests.domain.values import metrics

CROWDED = metrics(20, 2, 8)
QUIET = metrics(20, 18, 0)
FINE = metrics(20, 10, 0)


def advisor(
    min_pool_size: int = 5, max_pool_size: int = 50, *, samples: int = 1
) -> PoolSizingAdvisor:
    """An advisor that acts after `samples`, if more than three callers wait."""
    return PoolSizingAdvisor(
        PoolPressureMonitorConfig(
            enabled=True,
            min_pool_size=min_pool_size,
            max_pool_size=max_pool_size,
            target_queue_depth=3,
            samples_before_action=samples,
        )
    )


def resized(pool: PoolMetrics, size: int) -> PoolMetrics:
    """The same pool with the same number of connections in use, after somebody resized it."""
    return metrics(size, max(0, size - pool.active_connections), pool.waiting_requests)


def test_it_is_stable_when_the_queue_is_short_and_the_idle_share_at_its_threshold() -> None:
    assert advisor().evaluate(metrics(20, 10, 0)).action is ScalingAction.STABLE


def test_it_advises_a_larger_pool_when_the_queue_exceeds_the_target() -> None:
    advice = advisor().evaluate(metrics(20, 2, 8))
    assert (advice.action, advice.current_size, advice.new_size) == (ScalingAction.SCALE_UP, 20, 25)
    assert advice.reason_code is ReasonCode.QUEUE_ABOVE_TARGET
    assert advice.reason == "8 requests waiting (threshold 3); grown by 5"


def test_it_advises_a_smaller_pool_when_too_many_connections_are_idle() -> None:
    advice = advisor().evaluate(metrics(20, 18, 0))
    assert (advice.action, advice.current_size, advice.new_size) == (
        ScalingAction.SCALE_DOWN,
        20,
        18,
    )
    assert advice.reason_code is ReasonCode.IDLE_ABOVE_RATIO
    assert advice.reason == "idle ratio 90% > 50% threshold; shrunk by 2"


@pytest.mark.parametrize(("total", "new_size"), [(12, 10), (11, 10)])
def test_it_never_advises_fewer_than_the_minimum(total: int, new_size: int) -> None:
    advice = advisor(10).evaluate(metrics(total, total, 0))
    assert (advice.action, advice.new_size) == (ScalingAction.SCALE_DOWN, new_size)


def test_a_pool_at_its_minimum_stays() -> None:
    advice = advisor(10).evaluate(metrics(10, 10, 0))
    assert (advice.action, advice.new_size) == (ScalingAction.STABLE, 10)


def test_it_never_advises_more_than_the_maximum() -> None:
    advice = advisor(5, 25).evaluate(metrics(25, 0, 20))
    assert (advice.action, advice.new_size) == (ScalingAction.STABLE, 25)
    assert advice.reason_code is ReasonCode.AT_MAXIMUM
    assert advisor(5, 25).evaluate(metrics(23, 0, 20)).new_size == 25


def test_it_acts_only_after_enough_samples_in_a_row() -> None:
    patient = advisor(samples=3)
    assert [patient.evaluate(CROWDED).action for _ in range(3)] == [
        ScalingAction.STABLE,
        ScalingAction.STABLE,
        ScalingAction.SCALE_UP,
    ]


def test_it_has_recommended_nothing_at_first() -> None:
    assert PoolSizingAdvisor(PoolPressureMonitorConfig()).recommended_size == 0


def test_its_adjustments_start_at_zero() -> None:
    assert PoolSizingAdvisor(PoolPressureMonitorConfig()).adjustments_total == 0


@pytest.mark.parametrize(("sample", "size"), [(CROWDED, 25), (QUIET, 18)])
def test_advice_to_change_is_counted_and_remembered(sample: PoolMetrics, size: int) -> None:
    one = advisor()
    one.evaluate(sample)
    assert (one.adjustments_total, one.recommended_size) == (1, size)


def test_advice_to_stay_is_neither_counted_nor_remembered() -> None:
    one = advisor()
    one.evaluate(CROWDED)
    one.evaluate(FINE)
    one.evaluate(metrics(50, 0, 20))
    assert (one.adjustments_total, one.recommended_size) == (1, 25)


@pytest.mark.parametrize(
    ("seen", "action"),
    [
        ([CROWDED, CROWDED, FINE, CROWDED, CROWDED], ScalingAction.STABLE),
        ([CROWDED, CROWDED, QUIET, CROWDED, CROWDED], ScalingAction.STABLE),
        ([CROWDED, CROWDED, FINE, CROWDED, CROWDED, CROWDED], ScalingAction.SCALE_UP),
        ([QUIET, QUIET, FINE, QUIET, QUIET], ScalingAction.STABLE),
        ([QUIET, QUIET, CROWDED, QUIET, QUIET], ScalingAction.STABLE),
        ([QUIET, QUIET, FINE, QUIET, QUIET, QUIET], ScalingAction.SCALE_DOWN),
        ([CROWDED, CROWDED, CROWDED, CROWDED, CROWDED], ScalingAction.STABLE),
        ([CROWDED] * 6, ScalingAction.SCALE_UP),
        ([QUIET] * 5, ScalingAction.STABLE),
        ([QUIET] * 6, ScalingAction.SCALE_DOWN),
    ],
)
def test_a_streak_ends_with_another_sample_and_with_its_own_advice(
    seen: list[PoolMetrics], action: ScalingAction
) -> None:
    patient = advisor(samples=3)
    assert [patient.evaluate(sample) for sample in seen][-1].action is action


def test_callers_waiting_at_the_maximum_end_the_streak() -> None:
    patient = advisor(5, 20, samples=2)
    full = metrics(20, 0, 9)
    assert [patient.evaluate(full).reason_code for _ in range(4)] == [
        ReasonCode.COLLECTING_SAMPLES,
        ReasonCode.AT_MAXIMUM,
        ReasonCode.COLLECTING_SAMPLES,
        ReasonCode.AT_MAXIMUM,
    ]


@pytest.mark.parametrize(("sample", "size"), [(CROWDED, 25), (QUIET, 18)])
def test_a_pool_nobody_resizes_gets_the_same_advice_again_and_again(
    sample: PoolMetrics, size: int
) -> None:
    one = advisor()
    assert {one.evaluate(sample).new_size for _ in range(20)} == {size}
    assert one.adjustments_total == 20


def test_a_pool_that_was_resized_starts_from_its_new_size() -> None:
    one = advisor()
    assert one.evaluate(CROWDED).new_size == 25
    assert one.evaluate(metrics(31, 0, 8)).new_size == 36
    assert one.evaluate(metrics(7, 7, 0)).new_size == 5


def test_followed_exactly_it_comes_to_rest_at_the_bounds() -> None:
    greedy, sizes = advisor(), [20]
    for _ in range(10):
        sizes.append(greedy.evaluate(metrics(sizes[-1], 0, 8)).new_size)
    assert sizes == [20, 25, 30, 35, 40, 45, 50, 50, 50, 50, 50]
    modest, sizes = advisor(), [10]
    for _ in range(5):
        sizes.append(modest.evaluate(metrics(sizes[-1], sizes[-1], 0)).new_size)
    assert sizes == [10, 8, 6, 5, 5, 5]


def test_it_shows_its_configuration() -> None:
    config = PoolPressureMonitorConfig(min_pool_size=2)
    assert PoolSizingAdvisor(config).config is config


@st.composite
def samples(draw: st.DrawFn) -> PoolMetrics:
    total = draw(st.integers(0, 80))
    return metrics(total, draw(st.integers(0, total)), draw(st.integers(0, 12)))


@given(st.lists(samples(), max_size=30))
def test_the_same_samples_get_the_same_advice(seen: list[PoolMetrics]) -> None:
    one, other = advisor(samples=2), advisor(samples=2)
    assert [one.evaluate(each) for each in seen] == [other.evaluate(each) for each in seen]


@given(st.lists(samples(), max_size=30))
def test_it_counts_and_remembers_exactly_what_it_advised(seen: list[PoolMetrics]) -> None:
    one = advisor(samples=2)
    changes: list[PoolSizingRecommendation] = []
    for sample in seen:
        advice = one.evaluate(sample)
        if advice.action is not ScalingAction.STABLE:
            changes.append(advice)
        assert one.adjustments_total == len(changes)
        assert one.recommended_size == (changes[-1].new_size if changes else 0)


@given(samples())
def test_followed_on_steady_load_it_comes_to_rest(sample: PoolMetrics) -> None:
    one, sizes = advisor(samples=2), list[int]()
    for _ in range(100):
        advice = one.evaluate(sample)
        sizes.append(advice.new_size)
        if advice.action is not ScalingAction.STABLE:
            sample = resized(sample, advice.new_size)
    assert len(set(sizes[-10:])) == 1
