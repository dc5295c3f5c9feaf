"""The hysteresis rule: which values it accepts, and the laws of its advice."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisor import (
    PoolPressureMonitorConfig,
    ReasonCode,
    ScalingAction,
    Streaks,
    advise_by_thresholds,
)
from app.domain.errors import InvalidInput
from app.domain.pool import PoolMetrics
from tests.domain.values import metrics

EAGER = PoolPressureMonitorConfig(samples_before_action=1)

streaks = st.builds(Streaks, high_queue=st.integers(0, 6), high_idle=st.integers(0, 6))


@st.composite
def configs(draw: st.DrawFn) -> PoolPressureMonitorConfig:
    min_pool_size = draw(st.integers(1, 60))
    return PoolPressureMonitorConfig(
        min_pool_size=min_pool_size,
        max_pool_size=min_pool_size + draw(st.integers(1, 60)),
        target_queue_depth=draw(st.integers(0, 10)),
        scale_up_step=draw(st.integers(1, 20)),
        scale_down_step=draw(st.integers(1, 20)),
        scale_down_idle_ratio=draw(st.floats(0.0, 1.0)),
        samples_before_action=draw(st.integers(1, 4)),
    )


@st.composite
def samples(draw: st.DrawFn) -> PoolMetrics:
    total = draw(st.integers(0, 150))
    return metrics(total, draw(st.integers(0, total)), draw(st.integers(0, 20)))


def test_the_defaults_are_the_published_ones() -> None:
    config = PoolPressureMonitorConfig()
    assert not config.enabled
    assert (config.min_pool_size, config.max_pool_size) == (5, 50)
    assert config.target_queue_depth == 3
    assert (config.scale_up_step, config.scale_down_step) == (5, 2)
    assert config.scale_down_idle_ratio == 0.5
    assert config.tuning_interval_ms == 30_000
    assert config.samples_before_action == 3


@pytest.mark.parametrize(
    "values",
    [
        {"min_pool_size": 49},
        {"min_pool_size": 1, "max_pool_size": 2},
        {"target_queue_depth": 0},
        {"scale_up_step": 1, "scale_down_step": 1},
        {"scale_down_idle_ratio": 0.0},
        {"scale_down_idle_ratio": 1.0},
        {"tuning_interval_ms": 100},
        {"samples_before_action": 1},
    ],
)
def test_values_at_their_limits_are_accepted(values: dict[str, Any]) -> None:
    config = PoolPressureMonitorConfig(**values)
    assert {name: getattr(config, name) for name in values} == values


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"min_pool_size": 50}, "min_pool_size must be less than max_pool_size"),
        ({"min_pool_size": 51}, "min_pool_size must be less than max_pool_size"),
        ({"min_pool_size": 0}, "min_pool_size"),
        ({"min_pool_size": -1}, "min_pool_size"),
        ({"max_pool_size": 5}, "max_pool_size"),
        ({"target_queue_depth": -1}, "target_queue_depth"),
        ({"scale_up_step": 0}, "scale_up_step"),
        ({"scale_down_step": 0}, "scale_down_step"),
        ({"scale_up_step": -5}, "scale_up_step"),
        ({"scale_down_idle_ratio": -0.01}, "scale_down_idle_ratio"),
        ({"scale_down_idle_ratio": 1.01}, "scale_down_idle_ratio"),
        ({"scale_down_idle_ratio": float("nan")}, "scale_down_idle_ratio"),
        ({"tuning_interval_ms": 99}, "tuning_interval_ms must be at least 100"),
        ({"tuning_interval_ms": 0}, "tuning_interval_ms"),
        ({"samples_before_action": 0}, "samples_before_action"),
    ],
)
def test_values_the_rule_cannot_work_with_are_refused_by_name(
    values: dict[str, Any], culprit: str
) -> None:
    with pytest.raises(InvalidInput, match=culprit):
        PoolPressureMonitorConfig(**values)


@pytest.mark.parametrize(
    ("sample", "action"),
    [
        (metrics(20, 2, 3), ScalingAction.STABLE),
        (metrics(20, 2, 4), ScalingAction.SCALE_UP),
        (metrics(20, 10, 0), ScalingAction.STABLE),
        (metrics(20, 11, 0), ScalingAction.SCALE_DOWN),
        (metrics(20, 20, 1), ScalingAction.STABLE),
        (metrics(20, 20, 3), ScalingAction.STABLE),
        (metrics(20, 20, 4), ScalingAction.SCALE_UP),
        (metrics(5, 5, 0), ScalingAction.STABLE),
        (metrics(6, 6, 0), ScalingAction.SCALE_DOWN),
        (metrics(49, 0, 4), ScalingAction.SCALE_UP),
        (metrics(50, 0, 4), ScalingAction.STABLE),
        (metrics(0, 0, 0), ScalingAction.STABLE),
        (metrics(0, 0, 4), ScalingAction.SCALE_UP),
    ],
)
def test_only_more_than_the_threshold_is_too_much(
    sample: PoolMetrics, action: ScalingAction
) -> None:
    advice, _ = advise_by_thresholds(EAGER, Streaks(), sample)
    assert advice.action is action


@pytest.mark.parametrize(
    ("ratio", "action"), [(1.0, ScalingAction.STABLE), (0.99, ScalingAction.SCALE_DOWN)]
)
def test_at_a_ratio_of_one_it_never_shrinks(ratio: float, action: ScalingAction) -> None:
    config = replace(EAGER, scale_down_idle_ratio=ratio)
    advice, _ = advise_by_thresholds(config, Streaks(), metrics(20, 20, 0))
    assert advice.action is action


def test_a_pool_without_connections_counts_as_one_of_the_minimum() -> None:
    advice, _ = advise_by_thresholds(EAGER, Streaks(), metrics(0, 0, 8))
    assert (advice.current_size, advice.new_size) == (5, 10)
    resting, _ = advise_by_thresholds(EAGER, Streaks(), metrics(0, 0, 0))
    assert (resting.current_size, resting.new_size) == (5, 5)


def test_a_shortened_step_is_reported_as_it_is() -> None:
    up, _ = advise_by_thresholds(EAGER, Streaks(), metrics(48, 0, 8))
    assert up.reason.endswith("grown by 2")
    down, _ = advise_by_thresholds(EAGER, Streaks(), metrics(6, 6, 0))
    assert down.reason.endswith("shrunk by 1")


def test_collecting_samples_says_how_many_there_are() -> None:
    advice, after = advise_by_thresholds(PoolPressureMonitorConfig(), Streaks(), metrics(20, 2, 8))
    assert advice.reason == "8 requests waiting (threshold 3), 1 of 3 samples"
    assert after == Streaks(high_queue=1)
    advice, after = advise_by_thresholds(PoolPressureMonitorConfig(), after, metrics(20, 18, 0))
    assert advice.reason == "idle ratio 90% > 50% threshold, 1 of 3 samples"
    assert after == Streaks(high_idle=1)


@given(configs(), streaks, samples())
def test_it_never_leads_out_of_the_bounds(
    config: PoolPressureMonitorConfig, before: Streaks, sample: PoolMetrics
) -> None:
    advice, _ = advise_by_thresholds(config, before, sample)
    if advice.action is ScalingAction.SCALE_UP:
        assert advice.current_size < advice.new_size <= config.max_pool_size
        assert advice.new_size <= advice.current_size + config.scale_up_step
    if advice.action is ScalingAction.SCALE_DOWN:
        assert config.min_pool_size <= advice.new_size < advice.current_size
        assert advice.new_size >= advice.current_size - config.scale_down_step
    if config.min_pool_size <= advice.current_size <= config.max_pool_size:
        assert config.min_pool_size <= advice.new_size <= config.max_pool_size


@given(configs(), streaks, samples())
def test_it_starts_from_the_actual_size(
    config: PoolPressureMonitorConfig, before: Streaks, sample: PoolMetrics
) -> None:
    advice, _ = advise_by_thresholds(config, before, sample)
    assert advice.current_size == (sample.total_connections or config.min_pool_size)
    assert (advice.action is ScalingAction.STABLE) == (advice.new_size == advice.current_size)


@given(configs(), streaks, samples())
def test_the_same_input_gets_the_same_output(
    config: PoolPressureMonitorConfig, before: Streaks, sample: PoolMetrics
) -> None:
    assert advise_by_thresholds(config, before, sample) == advise_by_thresholds(
        config, before, sample
    )


@given(configs(), samples())
def test_repeated_advice_on_unchanged_metrics_never_walks(
    config: PoolPressureMonitorConfig, sample: PoolMetrics
) -> None:
    remembered, found = Streaks(), set[int]()
    for _ in range(5 * config.samples_before_action):
        advice, remembered = advise_by_thresholds(config, remembered, sample)
        if advice.action is not ScalingAction.STABLE:
            found.add(advice.new_size)
    assert len(found) <= 1


@given(configs(), streaks, samples())
def test_at_most_one_streak_runs_and_none_outlasts_its_samples(
    config: PoolPressureMonitorConfig, before: Streaks, sample: PoolMetrics
) -> None:
    advice, after = advise_by_thresholds(config, before, sample)
    assert 0 in (after.high_queue, after.high_idle)
    assert max(after.high_queue, after.high_idle) < config.samples_before_action
    if advice.reason_code is ReasonCode.COLLECTING_SAMPLES:
        assert after in (
            Streaks(high_queue=before.high_queue + 1),
            Streaks(high_idle=before.high_idle + 1),
        )
    else:
        assert after == Streaks()


@given(configs(), streaks, samples(), st.integers(1, 10))
def test_more_waiting_callers_never_make_it_advise_fewer_connections(
    config: PoolPressureMonitorConfig, before: Streaks, sample: PoolMetrics, more: int
) -> None:
    advice, _ = advise_by_thresholds(config, before, sample)
    busier = replace(sample, waiting_requests=sample.waiting_requests + more)
    assert advise_by_thresholds(config, before, busier)[0].new_size >= advice.new_size


@given(configs(), streaks, samples(), st.integers(1, 10))
def test_fewer_idle_connections_never_make_it_advise_fewer(
    config: PoolPressureMonitorConfig, before: Streaks, sample: PoolMetrics, fewer: int
) -> None:
    advice, _ = advise_by_thresholds(config, before, sample)
    busier = replace(sample, idle_connections=max(0, sample.idle_connections - fewer))
    assert advise_by_thresholds(config, before, busier)[0].new_size >= advice.new_size


@given(configs(), streaks, samples())
def test_every_reason_is_one_line(
    config: PoolPressureMonitorConfig, before: Streaks, sample: PoolMetrics
) -> None:
    advice, _ = advise_by_thresholds(config, before, sample)
    assert advice.reason
    assert "\n" not in advice.reason
    assert (
        advice.reason_code
        in {
            ScalingAction.SCALE_UP: {ReasonCode.QUEUE_ABOVE_TARGET},
            ScalingAction.SCALE_DOWN: {ReasonCode.IDLE_ABOVE_RATIO},
            ScalingAction.STABLE: {
                ReasonCode.AT_MAXIMUM,
                ReasonCode.COLLECTING_SAMPLES,
                ReasonCode.WITHIN_THRESHOLDS,
            },
        }[advice.action]
    )
