"""Running means: of single values, and of the growth of counters."""

from math import inf

import pytest

from app.pools.smoothed import Smoothed, SmoothedGrowth


def test_without_history_nothing_is_known() -> None:
    assert (Smoothed().mean, Smoothed().bound) == (0.0, inf)
    assert SmoothedGrowth(7, 1.5).mean(7, 1.5) == 0.0


def test_the_bound_is_above_the_mean_by_four_deviations() -> None:
    times = Smoothed()
    times.note(0.1)
    assert (times.mean, times.deviation) == (0.1, 0.05)
    times.note(0.2)
    assert times.mean == pytest.approx(0.1125)
    assert times.deviation == pytest.approx(0.0625)
    assert times.bound == pytest.approx(0.1125 + 4 * 0.0625)


@pytest.mark.parametrize("together", [1, 3])
def test_growth_is_smoothed_as_single_values_are(together: int) -> None:
    single, growth = Smoothed(), SmoothedGrowth(7, 1.5)
    count, seconds, mean = 7, 1.5, 0.0
    for value in (0.01, 0.01, 0.01, 0.04, 0.04, 0.04):
        single.note(value)
        count, seconds = count + 1, seconds + value
        if (count - 7) % together == 0:
            mean = growth.mean(count, seconds)
    assert mean == pytest.approx(single.mean)
    assert growth.mean(count, seconds) == mean
