"""Which stored rows add up to a period: none is missing, and none counts twice."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.history import Resolution, ResolutionTimes
from app.domain.period import Period, stored_period

MIDNIGHT = datetime(2026, 7, 14, tzinfo=UTC)
RAW, MINUTE, HOUR, DAY = Resolution


def at(minutes: float) -> datetime:
    return MIDNIGHT + timedelta(minutes=minutes)


@dataclass
class Stored:
    """Rows of each resolution by their time, each with its polls."""

    rows: dict[Resolution, dict[datetime, list[datetime]]]

    @classmethod
    def of(cls, polls: list[datetime], until: dict[Resolution, datetime]) -> "Stored":
        """What downsampling *until* then makes of *polls*."""
        rows = {RAW: {poll: [poll] for poll in polls}}
        for finer, resolution in zip(Resolution, list(Resolution)[1:], strict=False):
            rows[resolution] = {}
            for time, made_of in rows[finer].items():
                if time < until[resolution]:
                    rows[resolution].setdefault(resolution.floor(time), []).extend(made_of)
        return cls(rows)

    def delete_before(self, limits: dict[Resolution, datetime]) -> None:
        for resolution, limit in limits.items():
            rows = self.rows[resolution]
            self.rows[resolution] = {time: rows[time] for time in rows if time >= limit}

    def period(self, start: datetime, end: datetime) -> Period:
        before = {each: [time for time in self.rows[each] if time < end] for each in Resolution}
        oldest: ResolutionTimes = {each: min(before[each], default=None) for each in Resolution}
        newest: ResolutionTimes = {each: max(before[each], default=None) for each in Resolution}
        return stored_period(start, end, oldest, newest)

    def polls(self, period: Period) -> list[datetime]:
        """The polls in the rows of *period*."""
        return sorted(
            poll
            for resolution, start, end in period.parts
            for time, made_of in self.rows[resolution].items()
            if start <= time < end
            for poll in made_of
        )


MINUTES = st.integers(0, 4 * 1440)


@given(
    begin=st.integers(0, 1440),
    end=MINUTES,
    bounds=st.tuples(MINUTES, MINUTES),
    lags=st.tuples(st.integers(0, 90), st.integers(0, 4), st.integers(0, 2)),
    kept=st.tuples(*[st.integers(0, 4 * 1440)] * 3),
)
@example(begin=552, end=1000, bounds=(570, 580), lags=(0, 0, 0), kept=(9999, 9999, 9999))
def test_a_period_is_exactly_the_polls_from_its_start_to_its_end(
    begin: int,
    end: int,
    bounds: tuple[int, int],
    lags: tuple[int, int, int],
    kept: tuple[int, int, int],
) -> None:
    polls = [at(minute + 0.3) for minute in range(begin, end, 7)]
    minutes = MINUTE.floor(at(end - lags[0]))
    hours = HOUR.floor(minutes) - lags[1] * HOUR.step
    days = DAY.floor(hours) - lags[2] * DAY.step
    stored = Stored.of(polls, {MINUTE: minutes, HOUR: hours, DAY: days})
    raw, minute, hour = sorted(kept)
    # As retention does: what is not downsampled stays.
    stored.delete_before(
        {
            RAW: min(minutes, MINUTE.floor(at(end - raw))),
            MINUTE: min(hours, HOUR.floor(at(end - minute))),
            HOUR: min(days, DAY.floor(at(end - hour))),
        }
    )
    first, last = at(min(bounds)), at(max(bounds))
    period = stored.period(first, last)
    assert stored.polls(period) == [poll for poll in polls if period.start <= poll < period.end]
    if polls and polls[0] < last:
        assert period.start <= max(first, MINUTE.floor(polls[0]))
        assert period.end <= last or period.end == period.start


def test_both_ends_are_moved_to_the_start_of_the_finest_row_that_is_left() -> None:
    stored = Stored.of(
        [at(minute) for minute in range(3 * 1440)], dict.fromkeys(Resolution, at(3 * 1440))
    )
    stored.delete_before({RAW: at(3 * 1440), MINUTE: at(2 * 1440 + 60), HOUR: at(1440)})
    for start, end, found in [
        # Minutes are left of both; of the end; of none; of neither an hour.
        (2 * 1440 + 75.5, 2 * 1440 + 90.9, (2 * 1440 + 75, 2 * 1440 + 90)),
        (2 * 1440 + 15, 2 * 1440 + 90, (2 * 1440, 2 * 1440 + 90)),
        (1440 + 90, 1440 + 150, (1440 + 60, 1440 + 120)),
        (90, 1440 + 90, (0, 1440 + 60)),
        (90, 100, (0, 0)),
    ]:
        period = stored.period(at(start), at(end))
        assert (period.start, period.end) == (at(found[0]), at(found[1]))


def test_long_periods_are_made_of_whole_hours_and_days() -> None:
    days = 40
    polls = [at(minute) for minute in range(0, days * 1440, 30)]
    stored = Stored.of(polls, dict.fromkeys(Resolution, at(days * 1440)))
    for length, end in [(1440, 1440 + 90), (1441, 1440 + 60), (32 * 1440, 32 * 1440)]:
        period = stored.period(at(90), at(90 + length))
        assert period.end == at(end)
    assert {each for each, _, _ in period.parts} == {DAY}


def test_periods_that_meet_share_no_row() -> None:
    stored = Stored.of(
        [at(minute) for minute in range(2 * 1440)], dict.fromkeys(Resolution, at(2 * 1440))
    )
    first, second = stored.period(at(15.5), at(700.5)), stored.period(at(700.5), at(1400))
    assert first.end == second.start
    assert not set(stored.polls(first)) & set(stored.polls(second))


def test_nothing_stored_is_an_empty_period() -> None:
    period = Stored.of([], dict.fromkeys(Resolution, MIDNIGHT)).period(at(0), at(60))
    assert (period.start, period.parts) == (period.end, ())
