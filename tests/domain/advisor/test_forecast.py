"""What a pool remembers of its load: rates, holds, late callers, and a window of the past."""

from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisor import DemandConfig
from app.domain.advisor.arrival_rate import ArrivalRate
from app.domain.advisor.forecast import Forecast
from app.domain.advisor.lateness import Lateness
from app.domain.advisor.window import Slice, Window
from app.domain.pool import NO_CONNECTIONS, PoolMetrics
from tests.domain.advisor.observations import TICK, histogram, seen

CONFIG = DemandConfig()
counts = st.lists(st.integers(0, 3000), min_size=1, max_size=30)


def rate_after(*arrivals: int) -> ArrivalRate:
    rate = ArrivalRate()
    for count in arrivals:
        rate = rate.updated(CONFIG, count, TICK)
    return rate


def test_a_steady_rate_is_expected_as_it_is() -> None:
    assert rate_after(*[300] * 20).expected(CONFIG) == pytest.approx(60.0)


def test_what_chance_explains_is_no_swing() -> None:
    noisy = [300 + int(sqrt(300)) * sign for sign in (1, -1) * 20]
    assert rate_after(*noisy).expected(CONFIG) == pytest.approx(60.0, rel=0.03)


def test_a_step_is_followed_at_once_and_not_beyond() -> None:
    assert rate_after(*[50] * 20, 500).expected(CONFIG) == pytest.approx(100.0)
    assert rate_after(*[50] * 20, *[500] * 5).expected(CONFIG) == pytest.approx(100.0)


def test_swings_of_the_load_are_added() -> None:
    swinging = rate_after(*[100, 900] * 15)
    assert 100.0 < swinging.expected(CONFIG) <= 180.0


@given(counts)
def test_never_more_is_expected_than_ever_came(arrivals: list[int]) -> None:
    assert 0.0 <= rate_after(*arrivals).expected(CONFIG) <= max(arrivals) / TICK + 1e-9


@given(counts, st.integers(0, 3000))
def test_more_arrivals_in_a_tick_never_smooth_to_a_lower_rate(
    arrivals: list[int], more: int
) -> None:
    fewer, busier = rate_after(*arrivals), rate_after(*arrivals[:-1], arrivals[-1] + more)
    assert busier.fast is not None
    assert fewer.fast is not None
    assert busier.fast >= fewer.fast


def forecast_after(*ticks: tuple[float, float]) -> Forecast:
    """Ticks of (callers per second, seconds of a lease) in a pool of 20."""
    forecast = Forecast()
    for rate, hold in ticks:
        forecast = forecast.updated(CONFIG, seen(20, rate=rate, hold=hold))
    return forecast


def test_the_load_is_rate_times_hold() -> None:
    load = forecast_after(*[(60.0, 0.1)] * 10).load(CONFIG)
    assert load.erlangs == pytest.approx(6.0, rel=0.05)
    assert load.hold == pytest.approx(0.1, rel=0.05)
    assert load.cv2 == pytest.approx(0.0, abs=1e-6)


def test_a_pool_without_leases_has_no_load() -> None:
    assert Forecast().load(CONFIG).erlangs == 0.0
    assert forecast_after((0.0, 0.1)).load(CONFIG).erlangs == 0.0


def test_a_hold_inflated_under_load_counts_only_in_part() -> None:
    forecast = forecast_after(*[(60.0, 0.1)] * 30, *[(60.0, 1.0)] * 60)
    assert forecast.hold == pytest.approx(0.9, rel=0.1)
    assert forecast.base_hold == pytest.approx(0.1, rel=0.05)
    assert forecast.load(CONFIG).hold == pytest.approx(0.1 * CONFIG.hold_inflation, rel=0.05)
    assert forecast.is_inflated(CONFIG)
    assert not forecast.rebased().is_inflated(CONFIG)


def test_a_hold_that_is_longer_under_light_load_is_believed() -> None:
    forecast = forecast_after(*[(60.0, 0.1)] * 30, *[(20.0, 0.2)] * 60)
    assert not forecast.is_inflated(CONFIG)
    assert forecast.load(CONFIG).hold == pytest.approx(0.2, rel=0.1)


def test_of_the_first_few_leases_under_light_load_each_counts_alike() -> None:
    """The first lease was quick, and the next ones are not: it is one of many, not the base."""
    forecast = forecast_after((0.2, 0.002), *[(0.2, 0.2)] * 49)
    assert forecast.base_hold == pytest.approx(0.2, rel=0.05)
    assert forecast.base_leases == 50


def test_a_shorter_hold_is_believed_under_any_load() -> None:
    forecast = forecast_after(*[(200.0, 0.2)] * 5, *[(200.0, 0.1)] * 60)
    assert forecast.base_hold == pytest.approx(0.1, rel=0.1)


def test_varied_holds_are_known_as_varied() -> None:
    tick = seen(20, released=100, active=5.0, hold_times=histogram((0.01, 50), (1.0, 50)))
    # Mean 0.505 s, standard deviation 0.495 s.
    assert Forecast().updated(CONFIG, tick).holds.cv2 == pytest.approx(0.96, rel=0.1)


# --- rate and hold are of the same callers

BRIEF = {"rate": 100.0, "hold": 0.002}
SLEEPERS: list[dict[str, Any]] = [
    {"rate": 0.8, "active": 4.0, "released": 0, "hold_times": histogram()},
    *[{"active": 4.0}] * 2,
]
THEIR_END: dict[str, Any] = {
    **BRIEF,
    "active": 2.2,
    "metrics": NO_CONNECTIONS,
    "hold_times": histogram((15.0, 4), (0.002, 500)),
}


def forecast_of(*ticks: dict[str, Any], size: int = 5) -> Forecast:
    forecast = Forecast()
    for tick in ticks:
        forecast = forecast.updated(CONFIG, seen(size, **tick))
    return forecast


def test_earlier_long_leases_are_not_multiplied_by_the_rate_of_short_ones() -> None:
    """Four statements of 15 s, then 100 per second of 2 ms, none of which waited."""
    while_they_end = forecast_of(*SLEEPERS, THEIR_END)
    assert while_they_end.hold == pytest.approx(0.12, rel=0.1)
    assert while_they_end.load(CONFIG).erlangs < 1.2 * 2.2
    for more in range(1, 30):
        forecast = forecast_of(*SLEEPERS, THEIR_END, *[BRIEF] * more)
        assert forecast.load(CONFIG).erlangs == pytest.approx(0.2, abs=0.1)
        assert forecast.offered_load(CONFIG) <= forecast.load(CONFIG).erlangs
        assert forecast.load(CONFIG).cv2 == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("after", [[{}] * 3, [{"rate": 0.6, "hold": 0.002}] * 3])
def test_nor_are_they_when_hardly_anybody_comes_any_more(after: list[dict[str, Any]]) -> None:
    assert forecast_of(*SLEEPERS, THEIR_END, *[BRIEF] * 3, *after).load(CONFIG).erlangs < 0.3


def test_the_rate_of_earlier_short_leases_is_not_multiplied_by_long_ones() -> None:
    """Then 16 of 2 s, on eight connections: half of them wait for the others."""
    longest: dict[str, Any] = {"active": 8.0, "released": 0, "hold_times": histogram((25.0, 8))}
    flood = {"rate": 200.0, "hold": 0.002}
    long_ones = {"rate": 3.2, "hold": 2.0, "active": 5.9, "waiting": 1.6}
    so_far = longest, *[flood] * 2, long_ones
    forecast = forecast_of(*so_far, size=8)
    assert forecast.arrivals.expected(CONFIG) * (forecast.hold or 0.0) > 18.0
    assert forecast.load(CONFIG).erlangs < 10.0
    for idle in range(1, 20):
        forecast = forecast_of(*so_far, *[{}] * idle, size=8)
        assert forecast.load(CONFIG).erlangs < 10.0 / (idle + 1) + 0.5


def test_long_leases_that_have_only_begun_count_in_full() -> None:
    """At 4 per second and 15 s each, 10 are busy on average in the first 5 s; 60 will be."""
    usual = {"rate": 0.2, "hold": 15.0}
    begun = {"rate": 4.0, "active": 10.0, "released": 0, "hold_times": histogram()}
    all_busy = PoolMetrics(
        total_connections=20, idle_connections=0, active_connections=20, waiting_requests=0
    )
    forecast = forecast_of(*[usual] * 60, {**begun, "metrics": all_busy}, size=20)
    assert forecast.load(CONFIG).hold == pytest.approx(15.0, rel=0.05)


@pytest.mark.parametrize(
    "facts",
    [
        {"active": 5.0, "waiting": 20.0},
        {"active": 5.0, "timeouts": 300, "acquired": 200},
        {"active": 5.0, "rejected": 300, "acquired": 200},
        {"active": 5.0, "arrivals_on_nodes": 10, "mean_active_on_nodes": 1.0},
    ],
    ids=["waited", "timed out", "refused", "on nodes, where nothing is measured"],
)
def test_who_lacked_a_connection_would_have_held_one(facts: dict[str, Any]) -> None:
    """Five connections serve 50 per second of 100 ms; 100 per second ask for one."""
    usual, overload = {"rate": 20.0, "hold": 0.1}, {"rate": 100.0, "hold": 0.1, **facts}
    forecast = forecast_of(*[usual] * 20, *[overload] * 5)
    assert forecast.load(CONFIG).erlangs == pytest.approx(10.0, rel=0.05)


@given(st.lists(st.integers(0, 60), min_size=2, max_size=40))
def test_the_load_of_equal_callers_is_rate_times_hold_however_few_they_are(
    arrivals: list[int],
) -> None:
    forecast = forecast_of(*[{"rate": count / TICK, "hold": 0.1} for count in arrivals], size=20)
    expected = forecast.arrivals.expected(CONFIG) * (forecast.hold or 0.0)
    assert forecast.load(CONFIG).erlangs == pytest.approx(expected)


def test_late_callers_waited_longer_than_the_patience_or_got_nothing() -> None:
    tick = seen(5, rate=20.0, late=3, timeouts=2, rejected=1)
    late = Lateness.of(tick, 0.05)
    assert (late.late, late.callers) == (6, 103)
    assert late.share == pytest.approx(6 / 103)


def test_who_waited_until_the_pool_could_be_opened_is_not_late_for_its_size() -> None:
    tick = seen(5, rate=20.0, late=3, timeouts=2, pool_limit_waits=4)
    late = Lateness.of(tick, 0.05)
    assert (late.late, late.callers) == (1, 98)


@pytest.mark.parametrize(
    ("late", "callers", "bound"),
    [
        (0, 0, 0.0),
        (0, 500, 0.0),
        (1, 1, 0.27),
        (1, 20, 0.01123),
        (10, 100, 0.0610),
        (50, 100, 0.4188),
    ],
)
def test_the_bound_is_wilsons(late: int, callers: int, bound: float) -> None:
    assert Lateness(late=late, callers=callers).bound == pytest.approx(bound, rel=0.02)


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_bound_never_exceeds_what_was_measured(late: int, more: int) -> None:
    measured = Lateness(late=late, callers=late + more)
    assert 0.0 <= measured.bound <= measured.share


def window_of(*needed: int, span: float = 300.0) -> Window:
    window = Window()
    for place, need in enumerate(needed):
        window = window.with_slice(
            Slice(
                start=place * TICK,
                needed=need,
                size=need,
                busy=need * TICK,
                seconds=TICK,
                events=10,
            ),
            span,
        )
    return window


def test_a_peak_is_remembered_for_the_window_and_then_forgotten() -> None:
    assert window_of(9, *[2] * 58).needed == 9
    assert window_of(9, *[2] * 66).needed == 2


@given(st.lists(st.integers(0, 50), min_size=1, max_size=150))
def test_the_window_covers_its_span_and_hardly_more(needed: list[int]) -> None:
    window = window_of(*needed)
    assert max(needed[-60:]) <= window.needed <= max(needed[-66:])
    assert window.events <= 10 * 66
    assert len(window.slices) <= 23


def test_the_median_is_of_time_not_of_peaks() -> None:
    assert window_of(*[2] * 50, *[30] * 10).median_busy == pytest.approx(2.0)
    assert Window().median_busy == 0.0


def test_a_gap_in_the_measurements_empties_the_window() -> None:
    window = window_of(*[9] * 20).with_slice(
        Slice(start=5000.0, needed=1, size=1, busy=5.0, seconds=TICK, events=1), 300.0
    )
    assert (window.needed, window.events) == (1, 1)


def test_the_largest_size_of_the_last_minute_is_known() -> None:
    window = window_of(*[20] * 10, *[10] * 20)
    assert window.largest_within_a_minute(30 * TICK) == 10
    assert window_of(*[20] * 10, *[10] * 5).largest_within_a_minute(15 * TICK) == 20
