"""Durations that a pooler did not count are made up for, but not those that are still to come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.nodes.shortfall import Shortfall

some_seconds = st.floats(0.0, 100.0)


def test_transactions_under_way_have_time_to_make_up_for_it() -> None:
    short, uncounted = Shortfall().updated(3.0, 1.0, under_way=4.0)
    assert uncounted == 0.0
    assert short.updated(-3.0, 1.0, under_way=4.0) == (Shortfall(), 0.0)
    # More than they can make up for: it includes what was in use all the while.
    assert short.updated(2.0, 1.0, under_way=4.0) == (Shortfall(), 3.0 + 2.0 + 1.0 + 1.0)


@given(st.lists(st.tuples(some_seconds, some_seconds, some_seconds), min_size=1))
def test_durations_never_stay_behind_by_more_than_is_under_way(
    intervals: list[tuple[float, float, float]],
) -> None:
    short, behind = Shortfall(), 0.0
    for waited, lasted, under_way in intervals:
        short, uncounted = short.updated(waited - lasted, 0.0, under_way=under_way)
        behind = max(0.0, behind + waited - lasted - uncounted)
        assert behind <= under_way + 1e-6
        assert behind == pytest.approx(short.seconds, abs=1e-6)
