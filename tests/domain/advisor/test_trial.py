"""Trials of growth: when one begins, its outcome, and how long the ceiling holds."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.advisor import TrialConfig
from app.domain.advisor.trial import SaturatedPeriod, ThroughputComparison, TrialState, TrialVerdict
from app.domain.errors import InvalidInput
from tests.domain.advisor.observations import TICK, seen

CONFIG = TrialConfig()


def observe(
    state: TrialState, *ticks: tuple[int, int], at: float = 0.0
) -> tuple[TrialState, list[Any]]:
    """Saturated ticks of (size, leases ended), and the outcome of each."""
    verdicts = []
    for count, (size, released) in enumerate(ticks, start=1):
        tick = seen(size, at=at + count * TICK, active=size, waiting=9.0, released=released)
        state, verdict = state.updated(CONFIG, tick)
        verdicts.append(verdict)
    return state, verdicts


def test_a_growth_that_brings_as_much_throughput_is_kept() -> None:
    state, verdicts = observe(TrialState(), *[(10, 500)] * 3, *[(20, 980)] * 3)
    assert verdicts == [None] * 3 + [TrialVerdict.EXTEND] * 2 + [TrialVerdict.COMMIT]
    assert state.ceiling(31.0) is None


def test_a_growth_that_brings_nothing_is_undone_and_leaves_a_ceiling() -> None:
    state, verdicts = observe(TrialState(), *[(10, 500)] * 3, *[(20, 490)] * 3)
    assert verdicts[-1] is TrialVerdict.UNDO
    assert state.ceiling(30.0) == state.ceiling(329.0) == 10
    assert state.ceiling(330.0) is None


@pytest.mark.parametrize("released", [73, 78])
def test_an_undecided_trial_is_extended_and_then_undone(released: int) -> None:
    # Elasticities of 0.16 and 0.41, each give or take 0.6: certainly neither above nor below 0.3.
    state, verdicts = observe(TrialState(), *[(10, 70)] * 3, *[(13, released)] * 6)
    assert verdicts[3:] == [TrialVerdict.EXTEND] * 5 + [TrialVerdict.UNDO]
    assert state.ceiling(50.0) == 10


def test_every_further_failure_doubles_the_ceiling_up_to_an_hour() -> None:
    state, spans, now = TrialState(), [], 0.0
    for _ in range(6):
        state, verdicts = observe(state, *[(10, 500)] * 3, *[(20, 500)] * 3, at=now)
        assert verdicts[-1] is TrialVerdict.UNDO
        spans.append(state.ceiling_until - now - 6 * TICK)
        now = state.ceiling_until
    assert spans == [300.0, 600.0, 1200.0, 2400.0, 3600.0, 3600.0]
    state, _ = observe(state, *[(10, 500)] * 3, *[(20, 1000)] * 3, at=now)
    state, _ = observe(state, *[(20, 1000)] * 3, *[(40, 1000)] * 3, at=now + 30.0)
    assert state.ceiling_until - now - 60.0 == 300.0


@pytest.mark.parametrize(
    "before",
    [
        [(10, 500)] * 2,  # too short
        [(10, 60)] * 3,  # too few leases
    ],
)
def test_without_a_long_enough_period_before_it_nothing_is_on_trial(
    before: list[tuple[int, int]],
) -> None:
    _, verdicts = observe(TrialState(), *before, *[(20, 500)] * 4)
    assert set(verdicts) == {None}


def test_a_step_too_small_to_compare_is_no_trial() -> None:
    _, verdicts = observe(TrialState(), *[(30, 500)] * 3, *[(32, 500)] * 4)
    assert set(verdicts) == {None}


def test_a_load_that_falls_off_voids_the_trial() -> None:
    state, _ = observe(TrialState(), *[(10, 500)] * 3, (20, 500))
    state, verdict = state.updated(CONFIG, seen(20, at=25.0, active=12.0, released=500))
    assert verdict is TrialVerdict.VOID
    assert state.ceiling(25.0) is None
    _, verdicts = observe(state, *[(20, 500)] * 4, at=25.0)
    assert set(verdicts) == {None}


def test_too_few_leases_after_the_growth_void_it() -> None:
    _, verdicts = observe(TrialState(), *[(10, 500)] * 3, *[(20, 10)] * 6)
    assert verdicts[3:] == [TrialVerdict.EXTEND] * 5 + [TrialVerdict.VOID]


def test_another_growth_during_a_trial_ends_it() -> None:
    state, verdicts = observe(TrialState(), *[(10, 500)] * 3, (20, 500), *[(40, 500)] * 4)
    assert verdicts[-4:] == [None] * 4
    assert state.baseline is None


def test_elasticity_and_its_error_are_the_formula() -> None:
    compared = ThroughputComparison.of(
        SaturatedPeriod(size=10, ticks=3, completions=400, seconds=15.0),
        SaturatedPeriod(size=20, ticks=3, completions=800, seconds=15.0),
    )
    assert compared.elasticity == pytest.approx(1.0)
    assert compared.standard_error == pytest.approx((1 / 400 + 1 / 800) ** 0.5 / 0.6931, rel=1e-3)


def test_the_same_ticks_are_remembered_the_same() -> None:
    ticks = [*[(10, 500)] * 3, *[(20, 490)] * 3]
    assert observe(TrialState(), *ticks) == observe(TrialState(), *ticks)


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"saturation": 1.1}, "saturation"),
        ({"elasticity": -0.1}, "elasticity"),
        ({"ticks": 0}, "ticks"),
        ({"completions": 0}, "completions"),
        ({"max_ticks": 2}, "max_ticks"),
        ({"min_growth": 1.0}, "min_growth"),
        ({"certainty": 0.0}, "certainty"),
        ({"ceiling_seconds": float("nan")}, "ceiling_seconds"),
        ({"max_ceiling_seconds": 10.0}, "max_ceiling_seconds"),
    ],
)
def test_values_with_which_no_trial_could_end_are_refused_by_name(
    values: dict[str, Any], culprit: str
) -> None:
    with pytest.raises(InvalidInput, match=culprit):
        replace(CONFIG, **values)
