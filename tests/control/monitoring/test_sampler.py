"""Which polls are worth a row: averages and growth stay as if every poll had one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.control.monitoring.sampler import Sampler
from app.domain.counters import Counters
from app.domain.history import PoolSample, Resolution
from app.domain.pool import PoolStats
from tests.domain.values import metrics

NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
IDLE = PoolStats(counters=Counters(), metrics=metrics(2, 2, 0), window_seconds=300.0)


class Polls:
    """Polls of one subject, 5 s apart, and what was stored of them."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.sampling = Sampler()
        self.seconds = seconds
        self.connection_seconds = 0.0
        self.stored: list[PoolSample] = []

    def poll(self, stats: PoolStats | None = IDLE, *, is_known: bool = True) -> list[PoolSample]:
        """Measure, or find the subject gone; returns what is stored for it."""
        at, self.seconds = NOON + timedelta(seconds=self.seconds), self.seconds + 5
        held = self.connection_seconds
        new = [] if stats is None else list(self.sampling.sample("acme", at, 2, stats, held))
        new += self.sampling.end_missing(at, lambda _: is_known)
        self.stored += new
        return new


def busy(acquired: int, active: int = 1) -> PoolStats:
    gauges = replace(IDLE.metrics, active_connections=active)
    return replace(IDLE, counters=Counters(connections_acquired=acquired), metrics=gauges)


def test_the_first_poll_is_stored_at_once() -> None:
    [first] = Polls().poll(busy(3))
    assert (first.subject, first.at, first.polls, first.acquired) == ("acme", NOON, 1, 3)


def test_polls_that_measure_the_same_make_one_sample_a_minute() -> None:
    polls = Polls()
    per_minute = [[polls.poll() for _ in range(12)] for _ in range(3)]
    assert [sum(map(len, minute)) for minute in per_minute] == [1, 1, 1]
    first, rest, minute = polls.stored
    assert (first.polls, rest.polls, rest.gap_seconds) == (1, 11, 5.0)
    assert rest.at == NOON + timedelta(seconds=55)
    assert (minute.polls, minute.at) == (12, NOON + timedelta(seconds=115))


def test_a_change_is_stored_after_what_was_the_same_before() -> None:
    polls = Polls()
    for _ in range(3):
        polls.poll()
    idle, change = polls.poll(busy(1))
    assert (idle.polls, idle.acquired, idle.at) == (2, 0, NOON + timedelta(seconds=10))
    assert (change.polls, change.acquired, change.at) == (1, 1, NOON + timedelta(seconds=15))


def test_one_that_is_gone_leaves_its_last_polls_and_comes_back_with_its_growth() -> None:
    polls = Polls()
    polls.poll(busy(5))
    polls.poll(busy(5))
    [left] = polls.poll(None)
    assert (left.polls, left.at) == (1, NOON + timedelta(seconds=5))
    assert polls.poll(None) == []
    [back] = polls.poll(busy(5))
    assert (back.polls, back.acquired) == (1, 0)
    polls.poll(None)
    assert polls.poll(busy(7))[0].acquired == 2


def test_a_counter_that_fell_counts_from_zero_and_so_does_a_tenant_created_again() -> None:
    polls = Polls()
    polls.poll(busy(100))
    assert polls.poll(busy(3))[0].acquired == 3
    polls.poll(None, is_known=False)
    assert polls.poll(busy(4))[0].acquired == 4


def test_a_lease_that_lasts_is_counted_in_the_minutes_it_lasted() -> None:
    polls = Polls()
    for _ in range(25):
        polls.poll(busy(1))
        polls.connection_seconds += 5.0
    assert [each.connection_seconds for each in polls.stored] == [0.0, 55.0, 60.0]


def test_a_tenant_created_again_between_two_polls_counts_its_connection_time_from_zero() -> None:
    polls = Polls()
    polls.connection_seconds = 100.0
    polls.poll(busy(3))
    polls.connection_seconds = 2.0
    assert polls.poll(busy(1))[0].connection_seconds == 2.0


def test_a_clock_set_back_ends_what_was_the_same() -> None:
    polls = Polls(30)
    polls.poll()
    polls.poll()
    polls.seconds = 0
    [before] = polls.poll()
    assert (before.polls, before.at) == (1, NOON + timedelta(seconds=35))
    assert polls.poll() == []


@given(
    start=st.integers(0, 59),
    seen=st.lists(
        st.none() | st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 2)), max_size=60
    ),
)
def test_nothing_is_lost_and_nothing_counted_twice(
    start: int, seen: list[tuple[int, int, int] | None]
) -> None:
    """Each minute has as many polls, as much use and as much growth as were measured."""
    polls = Polls(start)
    acquired, expected = 0, dict[datetime, list[int]]()
    for one in seen:
        if one is None:
            polls.poll(None)
            continue
        grown, active, held = one
        acquired += grown
        at = NOON + timedelta(seconds=polls.seconds)
        sums = expected.setdefault(Resolution.MINUTE.floor(at), [0, 0, 0, 0])
        for index, value in enumerate((1, active, grown, held)):
            sums[index] += value
        polls.connection_seconds += held
        polls.poll(busy(acquired, active))
    polls.poll(None)
    stored = dict[datetime, list[int]]()
    for sample in polls.stored:
        begin = sample.at - timedelta(seconds=sample.gap_seconds * (sample.polls - 1))
        minute = Resolution.MINUTE.floor(sample.at)
        assert Resolution.MINUTE.floor(begin) == minute
        sums = stored.setdefault(minute, [0, 0, 0, 0])
        used = sample.polls * sample.active_connections
        held = int(sample.connection_seconds)
        for index, value in enumerate((sample.polls, used, sample.acquired, held)):
            sums[index] += value
    assert stored == expected
