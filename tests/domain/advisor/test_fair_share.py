"""Max-min fairness: how a scarce amount is divided, and the laws of dividing it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisor.fair_share import fair_level

requests = st.tuples(st.floats(0.0, 60.0), st.integers(1, 5))
many = st.lists(requests, max_size=30)
amounts = st.floats(0.0, 400.0)


def granted(amount: float, asked: list[tuple[float, int]]) -> list[float]:
    level = fair_level(amount, asked)
    return [wanted if level is None else min(wanted, level * weight) for wanted, weight in asked]


@pytest.mark.parametrize(
    ("amount", "wanted", "level"),
    [
        (10.0, [3.0, 4.0], None),
        (9.0, [14.0, 14.0], 4.5),
        (12.0, [2.0, 8.0, 8.0], 5.0),
        (10.0, [2.0, 20.0, 3.0], 5.0),
        (0.0, [4.0, 4.0], 0.0),
        (7.0, [], None),
        (10.0, [2.4, 5.5, 0.8, 1.3], None),  # their sum is larger, by rounding
    ],
)
def test_equal_weights_share_what_small_requests_leave(
    amount: float, wanted: list[float], level: float | None
) -> None:
    assert fair_level(amount, [(each, 1) for each in wanted]) == level


def test_weights_share_in_proportion() -> None:
    assert granted(12.0, [(50.0, 1), (50.0, 3)]) == [3.0, 9.0]
    assert granted(12.0, [(50.0, 1), (4.0, 3)]) == [8.0, 4.0]


@given(amounts, many)
def test_everything_is_granted_if_more_is_wanted_else_all_that_is_wanted(
    amount: float, asked: list[tuple[float, int]]
) -> None:
    wanted = sum(each for each, _ in asked)
    assert sum(granted(amount, asked)) == pytest.approx(min(amount, wanted), abs=1e-6)


@given(amounts, many)
def test_nobody_is_short_while_another_has_more_per_weight(
    amount: float, asked: list[tuple[float, int]]
) -> None:
    grants = granted(amount, asked)
    for grant, (wanted, weight) in zip(grants, asked, strict=True):
        if grant < wanted:
            for other, (_, other_weight) in zip(grants, asked, strict=True):
                assert other / other_weight <= grant / weight + 1e-9


@given(amounts, many)
def test_more_to_divide_takes_nothing_from_anybody(
    amount: float, asked: list[tuple[float, int]]
) -> None:
    before, after = granted(amount, asked), granted(amount + 5.0, asked)
    assert all(more >= less - 1e-6 for less, more in zip(before, after, strict=True))
