"""The histogram: the error of its quantiles, how it merges, and what it forgets when."""

from bisect import bisect_left

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.histogram import Histogram, RollingHistogram

WORST_RELATIVE_ERROR = 0.045
# All that the loop's clock can distinguish, up to a day.
DURATIONS = st.floats(2e-6, 86_400.0)
MANY = st.lists(DURATIONS | st.just(0.0), max_size=60)
FRACTIONS = st.floats(0.0, 1.0)

WINDOW, SLICES = 10.0, 5
SLICE = WINDOW / SLICES
# Binary fractions: sums of them are exact, so that laws can be tested at their exact limits.
STEPS = st.integers(0, 64).map(lambda eighths: eighths / 8)


def histogram(durations: list[float]) -> Histogram:
    counted = Histogram()
    for seconds in durations:
        counted.record(seconds)
    return counted


def merged(*parts: Histogram) -> tuple[dict[int, int], float]:
    whole = Histogram()
    for part in parts:
        whole.merge(part)
    return whole.counts, whole.longest


def exact(durations: list[float], fraction: float) -> float:
    """The smallest duration such that at least `fraction` of all are no longer than it."""
    rank = max(1.0, fraction * len(durations))
    return sorted(durations)[bisect_left(range(1, len(durations) + 1), rank)]


def test_quantiles_of_nothing_are_unknown() -> None:
    assert Histogram().quantiles((0.5, 0.99)) == (None, None)
    assert Histogram().longest == 0.0


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_one_duration_is_every_quantile(fraction: float) -> None:
    (response,) = histogram([0.25]).quantiles((fraction,))
    assert response == pytest.approx(0.25, rel=WORST_RELATIVE_ERROR)


@pytest.mark.parametrize("seconds", [0.0, 1e-12, 1e-7, 1e-6])
def test_durations_below_the_resolution_are_zero(seconds: float) -> None:
    assert histogram([seconds]).quantiles((0.5,)) == (0.0,)


def test_the_percentiles_of_a_uniform_second_are_where_they_belong() -> None:
    even = histogram([number / 1000 for number in range(1, 1001)])
    assert even.quantiles((0.5, 0.95, 0.99)) == pytest.approx(
        (0.5, 0.95, 0.99), rel=WORST_RELATIVE_ERROR
    )


@given(st.lists(DURATIONS | st.just(0.0), min_size=1, max_size=100), FRACTIONS)
def test_a_quantile_is_off_by_at_most_four_and_a_half_percent(
    durations: list[float], fraction: float
) -> None:
    (response,) = histogram(durations).quantiles((fraction,))
    assert response == pytest.approx(exact(durations, fraction), rel=WORST_RELATIVE_ERROR, abs=0)


@given(MANY.filter(bool), st.lists(FRACTIONS, min_size=1, max_size=10).map(sorted))
def test_a_larger_fraction_never_has_a_smaller_quantile(
    durations: list[float], fractions: list[float]
) -> None:
    counted = histogram(durations)
    answers = [response for response in counted.quantiles(fractions) if response is not None]
    assert answers == sorted(answers)
    assert len(answers) == len(fractions)
    assert tuple(answers) == tuple(counted.quantiles([one])[0] for one in fractions)


@given(MANY)
def test_it_counts_everything_and_keeps_the_longest_exactly(durations: list[float]) -> None:
    counted = histogram(durations)
    assert counted.count == len(durations)
    assert counted.longest == max(durations, default=0.0)


@given(MANY, MANY)
def test_merging_is_commutative(some: list[float], others: list[float]) -> None:
    left, right = histogram(some), histogram(others)
    assert merged(left, right) == merged(right, left)


@given(MANY, MANY, MANY)
def test_merging_is_associative(some: list[float], more: list[float], most: list[float]) -> None:
    first = histogram(some)
    first.merge(histogram(more))
    first.merge(histogram(most))
    rest = histogram(more)
    rest.merge(histogram(most))
    assert merged(first) == merged(histogram(some), rest)


@given(MANY, MANY)
def test_merging_counts_what_one_would_have_counted(some: list[float], more: list[float]) -> None:
    assert merged(histogram(some), histogram(more)) == merged(histogram(some + more))


@given(MANY)
def test_merging_leaves_the_other_as_it_was(durations: list[float]) -> None:
    other = histogram(durations)
    whole = Histogram()
    whole.merge(other)
    whole.record(1.0)
    assert merged(other) == merged(histogram(durations))


@given(st.lists(st.tuples(STEPS, st.booleans()), min_size=1, max_size=40))
@example([(0.0, True), (10.0, False), (1.875, False)])
@example([(1.875, True), (0.125, True), (10.0, True), (2.0, False)])
def test_a_window_covers_what_is_young_and_nothing_that_is_old(
    pauses: list[tuple[float, bool]],
) -> None:
    rolling = RollingHistogram(WINDOW, SLICES)
    now, recorded = 1000.0, dict[int, float]()
    for number, (pause, something_happens) in enumerate(pauses):
        now += pause
        if something_happens:
            duration = 2.0**number * 1e-3
            rolling.record(duration, now)
            (bucket,) = histogram([duration]).counts
            recorded[bucket] = now
        covered = set(rolling.merged(now).counts)
        assert covered >= {each for each, at in recorded.items() if now - at < WINDOW - SLICE}
        assert covered <= {each for each, at in recorded.items() if now - at <= WINDOW}


def test_a_window_forgets_the_longest_too() -> None:
    rolling = RollingHistogram(WINDOW, SLICES)
    rolling.record(30.0, 100.0)
    rolling.record(0.5, 109.0)
    assert rolling.merged(109.0).longest == 30.0
    assert rolling.merged(111.0).longest == 0.5
    assert rolling.merged(150.0).longest == 0.0


def test_an_empty_window_stays_empty() -> None:
    rolling = RollingHistogram()
    assert rolling.merged(0.0).count == 0
    assert rolling.merged(1e6).quantiles((0.5,)) == (None,)


def test_a_quiet_window_holds_no_slices() -> None:
    rolling = RollingHistogram(WINDOW, SLICES)
    rolling.record(1.0, 0.0)
    for now in range(0, 1000, 7):
        rolling.merged(float(now))
    assert rolling._past == ()


@given(st.lists(DURATIONS, min_size=1, max_size=50))
def test_a_busy_window_holds_at_most_its_slices(durations: list[float]) -> None:
    rolling = RollingHistogram(WINDOW, SLICES)
    for number, duration in enumerate(durations):
        rolling.record(duration, number * SLICE)
    assert len(rolling._past) <= SLICES


@given(MANY, MANY)
def test_a_difference_is_what_was_counted_since(some: list[float], more: list[float]) -> None:
    before, after = histogram(some), histogram(some + more)
    rest = after - before
    assert rest.counts == histogram(more).counts
    assert rest.longest == pytest.approx(max(more, default=0.0), rel=0.1)
    if more and max(more) > max(some, default=0.0):
        assert rest.longest == max(more)


@given(MANY, st.lists(st.tuples(STEPS, DURATIONS), max_size=40))
def test_a_total_covers_everything_since_its_start(
    earlier: list[float], pauses: list[tuple[float, float]]
) -> None:
    rolling = RollingHistogram(WINDOW, SLICES)
    for seconds in earlier:
        rolling.record(seconds, 990.0)
    rolling.start_total()
    now = 1000.0
    for pause, seconds in pauses:
        now += pause
        rolling.record(seconds, now)
    assert merged(rolling.total()) == merged(histogram([seconds for _, seconds in pauses]))


def test_a_stopped_total_is_empty_and_the_window_goes_on() -> None:
    rolling = RollingHistogram(WINDOW, SLICES)
    rolling.start_total()
    rolling.record(1.0, 100.0)
    rolling.stop_total()
    assert rolling.total().count == 0
    assert rolling.merged(100.0).count == 1


def test_starting_a_total_takes_nothing_out_of_the_window() -> None:
    rolling = RollingHistogram(WINDOW, SLICES)
    rolling.record(1.0, 100.0)
    rolling.start_total()
    rolling.record(1.0, 101.0)
    assert (rolling.merged(102.0).count, rolling.total().count) == (2, 1)
