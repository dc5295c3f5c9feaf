"""A trace is read literally, or refused in a sentence."""

import pytest

from app.domain.errors import InvalidInput
from app.simulator.trace import parse_counts, scaled


def test_a_row_is_a_bin_whatever_its_timestamp_says() -> None:
    lines = ["timestamp,value\n", "2014-04-10 00:04:00,94.0\n", "\n", "whenever,0\n"]
    assert parse_counts(lines) == [94.0, 0.0]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "header"),
        (["timestamp,count", "a,1"], "header"),
        (["timestamp,value"], "no rows"),
        (["timestamp,value", "a"], "Line 2 of the trace has 1 columns"),
        (["timestamp,value", "a,1", "b,many"], "Line 3 of the trace: 'many' is not a number"),
        (["timestamp,value", "a,nan"], "finite"),
        (["timestamp,value", "a,inf"], "finite"),
        (["timestamp,value", "a,-1"], "at least 0"),
        (["timestamp,value", 'a,"1" 2'], "not CSV"),
    ],
)
def test_what_is_no_trace_is_refused_with_a_sentence(lines: list[str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_counts(lines)


def test_the_bin_at_the_99th_percentile_gets_the_rate_and_none_gets_more_than_the_limit() -> None:
    counts = [float(count) for count in range(1, 201)]
    rates = scaled(counts, p99_rate=99.0, clip_rate=99.25, bin_seconds=60)
    assert rates[:2] == [0.5, 1.0]
    assert rates[197] == 99.0
    assert rates[198:] == [99.25, 99.25]


def test_without_a_rate_the_counts_are_taken_as_they_are() -> None:
    assert scaled([60.0, 30.0], p99_rate=None, clip_rate=None, bin_seconds=60) == [1.0, 0.5]


def test_an_empty_trace_stays_empty_and_one_that_is_mostly_empty_is_refused() -> None:
    assert scaled([0.0, 0.0], p99_rate=60, clip_rate=None, bin_seconds=60) == [0.0, 0.0]
    with pytest.raises(InvalidInput, match="99th-percentile bin"):
        scaled([0.0] * 199 + [5.0], p99_rate=60, clip_rate=None, bin_seconds=60)
