"""Other rules are modelled as their authors describe them."""

from typing import Any

import pytest

from app.domain.advisor import PoolObservation, SizingRule
from app.domain.histogram import Histogram
from app.domain.pool import PoolMetrics
from app.simulator.baselines import IncrementRule, UtilizationRule
from app.simulator.clairvoyant import ClairvoyantRule
from app.simulator.knee import Knee
from app.simulator.workload import HoldTimes


def seen(
    at: float, size: int, active: float, waits: tuple[float, ...] = (), timeouts: int = 0
) -> PoolObservation:
    wait = Histogram()
    for each in waits:
        wait.record(each)
    metrics = PoolMetrics(
        total_connections=size, idle_connections=0, active_connections=size, waiting_requests=0
    )
    return PoolObservation(
        at=at,
        seconds=5.0,
        metrics=metrics,
        max_size=size,
        max_allowed=100,
        mean_active=active,
        timeouts=timeouts,
        wait=wait,
        hold=Histogram(),
    )


def followed(
    rule: SizingRule[Any], size: int, actives: list[float], tick: float = 5.0
) -> list[int]:
    """The sizes after each look, if all advice is followed."""
    memory, sizes = rule.initial_memory(), []
    for count, active in enumerate(actives, start=1):
        advice, memory = rule.advise(memory, seen(count * tick, size, active))
        size = advice.new_size
        sizes.append(size)
    return sizes


def test_utilisation_aims_at_70_percent_and_leaves_10_percent_alone() -> None:
    assert followed(UtilizationRule(), 10, [8.0]) == [12]
    assert followed(UtilizationRule(), 10, [7.6]) == [10]


def test_utilisation_grows_to_twice_the_size_in_15_seconds_at_most() -> None:
    assert followed(UtilizationRule(), 20, [100.0] * 6) == [40, 40, 40, 80, 80, 80]
    assert followed(UtilizationRule(), 2, [20.0] * 3) == [6, 6, 6]


def test_utilisation_shrinks_to_what_it_wanted_within_300_seconds() -> None:
    sizes = followed(UtilizationRule(), 20, [14.0] + [3.5] * 61)
    assert sizes[:60] == [20] * 60
    assert sizes[-1] == 5


def test_increment_grows_by_every_slow_or_failed_acquire_and_never_shrinks() -> None:
    rule = IncrementRule(slow=0.1)
    advice, _ = rule.advise(None, seen(5.0, 10, 10.0, waits=(0.0, 0.05, 0.3, 2.0), timeouts=3))
    assert advice.new_size == 15
    assert followed(rule, 10, [0.0] * 3) == [10, 10, 10]


def test_the_clairvoyant_knows_the_rate_until_the_next_tick() -> None:
    holds = HoldTimes(mean=0.15, cv=1.5)
    rule = ClairvoyantRule([10.0, 100.0, 10.0], 60, holds, late=0.1)
    sizes = [rule.advise(None, seen(at, 5, 1.0))[0].new_size for at in (50.0, 55.0, 60.0, 120.0)]
    assert sizes[0] == sizes[3] < 6
    assert 20 < sizes[2] < 30
    # The look at 55 lasts until 60, and no longer.
    assert sizes[1] == sizes[0]


def test_the_clairvoyant_holds_more_if_late_waits_cost_more_but_never_past_the_knee() -> None:
    holds = HoldTimes(mean=0.15, cv=1.5)

    def size(price: float, knee: Knee | None = None) -> int:
        rule = ClairvoyantRule([100.0], 60, holds, late=0.1, price=price, knee=knee)
        return rule.advise(None, seen(0.0, 5, 1.0))[0].new_size

    assert 15 < size(1) < size(10) < size(100) < size(1000) < 40
    assert size(1000, Knee(connections=18)) == 18


@pytest.mark.parametrize("rule", [UtilizationRule(), IncrementRule(slow=0.1)])
def test_no_rule_exceeds_the_maximum(rule: SizingRule[Any]) -> None:
    crowded = seen(5.0, 90, 90.0, waits=(1.0,) * 50)
    assert rule.advise(rule.initial_memory(), crowded)[0].new_size == 100
