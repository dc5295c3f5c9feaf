"""The recorder: counts since the service started, percentiles of the last minutes."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.counters import Counters
from app.domain.pool import Percentiles
from app.pools import recorder as recorder_module
from app.pools.recorder import Recorder
from tests.domain.values import NOON, metrics

IDLE = metrics(0, 0, 0)
STARTED = 5_000.0


class WallClock(datetime):
    """A wall clock that an administrator can change."""

    shown = NOON

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(cls.shown.timestamp(), tz)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> type[WallClock]:
    monkeypatch.setattr(recorder_module, "datetime", WallClock)
    monkeypatch.setattr(WallClock, "shown", NOON)
    return WallClock


def test_acquires_releases_gauges_and_the_longest_wait_are_in_the_statistics() -> None:
    recorder = Recorder()
    recorder.pool_opened(STARTED)
    recorder.record_acquire(0.005, STARTED)
    recorder.record_acquire(0.010, STARTED)
    recorder.record_release(0.1, STARTED)
    stats = recorder.stats(metrics(1, 0, 0), STARTED)
    assert stats.counters.connections_acquired == 2
    assert stats.counters.connections_released == 1
    assert stats.metrics.active_connections == 1
    assert stats.max_wait_time_ms == pytest.approx(10)
    assert stats.counters.wait_seconds == pytest.approx(0.015)
    assert stats.created_at is not None


def test_at_first_everything_is_zero() -> None:
    stats = Recorder().stats(IDLE, STARTED)
    assert stats.counters == Counters()
    assert (stats.counters.wait_seconds, stats.max_wait_time_ms) == (0.0, 0.0)
    assert (stats.created_at, stats.last_activity) == (None, None)
    assert stats.wait == stats.hold == stats.connect == Percentiles()


def test_every_counter_reaches_the_statistics_under_its_name() -> None:
    recorder = Recorder()
    expected = Counters(*range(1, 18))
    for name, value in expected._asdict().items():
        setattr(recorder, name, value)
    assert recorder.stats(IDLE, STARTED).counters == expected


def test_the_part_of_a_wait_that_was_for_a_slot_is_no_wait_for_a_connection() -> None:
    recorder = Recorder()
    recorder.pool_opened(STARTED)
    recorder.record_acquire(0.75, STARTED)
    recorder.record_abandoned(2.0, STARTED)
    for seconds in (0.5, 2.0):
        recorder.record_slot_wait(seconds)
    counted = recorder.counters
    assert (counted.pool_limit_waits, counted.pool_limit_wait_seconds) == (2, 2.5)
    assert counted.wait_seconds + counted.abandoned_seconds == 2.75
    stats = recorder.stats(IDLE, STARTED)
    assert stats.max_wait_time_ms == 2000.0
    reading = recorder.reading(
        STARTED, waiting=0, waiting_seconds=0.0, leased_seconds=0.0, open_seconds=0.0
    )
    assert reading.waiting_seconds == 0.25


def test_the_gauges_are_those_given() -> None:
    stats = Recorder().stats(metrics(7, 3, 2), STARTED)
    assert stats.metrics == metrics(7, 3, 2)


def test_waits_holds_and_connects_are_separate() -> None:
    recorder = Recorder()
    recorder.record_acquire(0.010, STARTED)
    recorder.record_release(0.200, STARTED)
    recorder.record_connect(3.0, STARTED)
    stats = recorder.stats(IDLE, STARTED)
    assert stats.wait.p50_ms == pytest.approx(10, rel=0.045)
    assert stats.hold.p95_ms == pytest.approx(200, rel=0.045)
    assert stats.connect.p99_ms == pytest.approx(3000, rel=0.045)
    assert stats.counters.connections_opened == 1


def test_percentiles_are_those_of_the_leases() -> None:
    recorder = Recorder()
    for milliseconds in range(1, 101):
        recorder.record_acquire(milliseconds / 1000, STARTED)
    stats = recorder.stats(IDLE, STARTED)
    assert stats.wait.p50_ms == pytest.approx(50, rel=0.045)
    assert stats.wait.p95_ms == pytest.approx(95, rel=0.045)
    assert stats.wait.p99_ms == pytest.approx(99, rel=0.045)


def test_waits_that_timed_out_are_in_the_percentiles_and_no_waits_of_the_advisors_readings() -> (
    None
):
    recorder = Recorder(window=60.0)
    recorder.pool_opened(STARTED)
    for _ in range(3):
        recorder.record_acquire(0.001, STARTED)
        recorder.record_abandoned(5.0, STARTED)
    assert recorder.late_share(0.1, STARTED) == 0.5
    stats = recorder.stats(IDLE, STARTED)
    assert stats.wait.p50_ms == pytest.approx(1, rel=0.045)
    assert stats.wait.p99_ms == pytest.approx(5000, rel=0.045)
    assert stats.max_wait_time_ms == 5000
    reading = recorder.reading(
        STARTED, waiting=0, waiting_seconds=0.0, leased_seconds=0.0, open_seconds=0.0
    )
    # The advisor counts timeouts beside them.
    assert reading.wait.count == 3
    assert recorder.stats(IDLE, STARTED + 61).wait == Percentiles()


def test_the_longest_wait_and_the_percentiles_decay_but_the_counters_stay() -> None:
    recorder = Recorder(window=60.0)
    recorder.record_acquire(2.0, STARTED)
    recorder.record_release(1.0, STARTED)
    recorder.record_connect(1.0, STARTED)
    later = recorder.stats(IDLE, STARTED + 61)
    assert later.window_seconds == 60.0
    assert later.max_wait_time_ms == 0.0
    assert later.wait == later.hold == later.connect == Percentiles()
    assert later.counters.wait_seconds == 2.0
    assert later.counters[:2] == (1, 1)


def test_the_statistics_say_when_a_pool_was_last_opened(wall: type[WallClock]) -> None:
    recorder = Recorder()
    recorder.pool_opened(STARTED)
    wall.shown = NOON + timedelta(hours=1)
    assert recorder.stats(IDLE, STARTED).created_at == NOON
    recorder.pool_opened(STARTED)
    assert recorder.stats(IDLE, STARTED).created_at == wall.shown


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(0), timedelta(days=400)])
def test_a_jump_of_the_wall_clock_does_not_change_how_long_ago_it_was(
    wall: type[WallClock], jump: timedelta
) -> None:
    recorder = Recorder()
    recorder.record_acquire(0.0, STARTED)
    wall.shown = NOON + jump
    shown = recorder.stats(IDLE, STARTED + 90).last_activity
    assert shown == wall.shown - timedelta(seconds=90)
    assert shown.tzinfo is UTC


def test_taking_and_giving_back_are_activity_and_connecting_is_not(wall: type[WallClock]) -> None:
    recorder = Recorder()
    recorder.record_connect(0.1, STARTED)
    assert recorder.stats(IDLE, STARTED).last_activity is None
    recorder.record_acquire(0.1, STARTED + 1)
    assert recorder.stats(IDLE, STARTED + 10).last_activity == NOON - timedelta(seconds=9)
    recorder.record_release(0.1, STARTED + 4)
    recorder.record_connect(0.1, STARTED + 8)
    assert recorder.stats(IDLE, STARTED + 10).last_activity == NOON - timedelta(seconds=6)


@given(st.lists(st.floats(0.0, 60.0), max_size=50))
def test_waits_add_up_and_the_longest_is_exact(waits: list[float]) -> None:
    recorder = Recorder()
    for wait in waits:
        recorder.record_acquire(wait, STARTED)
    stats = recorder.stats(IDLE, STARTED)
    assert stats.counters.connections_acquired == len(waits)
    assert stats.counters.wait_seconds == pytest.approx(sum(waits))
    assert stats.max_wait_time_ms == pytest.approx(max(waits, default=0.0) * 1000)


@given(st.lists(st.floats(0.0, 60.0), min_size=1, max_size=50))
def test_percentiles_ascend(waits: list[float]) -> None:
    recorder = Recorder()
    for wait in waits:
        recorder.record_acquire(wait, STARTED)
    shown = recorder.stats(IDLE, STARTED).wait
    assert shown.p50_ms is not None
    assert shown.p95_ms is not None
    assert shown.p99_ms is not None
    assert shown.p50_ms <= shown.p95_ms <= shown.p99_ms
