"""Max-min fairness: who gets what of a short budget, and the laws of dividing it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisor.fair_share import ShareRequest, divide


@st.composite
def requests(draw: st.DrawFn) -> ShareRequest:
    floor = draw(st.integers(0, 8))
    return ShareRequest(
        wanted=draw(st.integers(0, 60)),
        floor=floor,
        weight=draw(st.integers(1, 5)),
    )


many = st.lists(requests(), max_size=30)
budgets = st.integers(0, 400)


@pytest.mark.parametrize(
    ("budget", "wanted", "grants"),
    [
        (10, [3, 4], [3, 4]),
        (9, [14, 14], [5, 4]),
        (12, [2, 8, 8], [2, 5, 5]),
        (10, [2, 20, 3], [2, 5, 3]),
        (0, [4, 4], [0, 0]),
        (7, [], []),
    ],
)
def test_equal_weights_share_what_small_requests_leave(
    budget: int, wanted: list[int], grants: list[int]
) -> None:
    assert divide(budget, [ShareRequest(wanted=each) for each in wanted]) == grants


def test_weights_share_in_proportion() -> None:
    assert divide(12, [ShareRequest(wanted=50, weight=1), ShareRequest(wanted=50, weight=3)]) == [
        3,
        9,
    ]
    assert divide(12, [ShareRequest(wanted=50, weight=1), ShareRequest(wanted=4, weight=3)]) == [
        8,
        4,
    ]


def test_floors_come_first() -> None:
    assert divide(10, [ShareRequest(wanted=9, floor=8), ShareRequest(wanted=9)]) == [8, 2]


def test_floors_are_kept_even_beyond_the_budget() -> None:
    assert divide(5, [ShareRequest(wanted=9, floor=4), ShareRequest(wanted=2, floor=3)]) == [4, 3]


@given(budgets, many)
def test_the_sum_never_exceeds_the_budget_but_for_floors(
    budget: int, asked: list[ShareRequest]
) -> None:
    floors = sum(request.floor for request in asked)
    assert sum(divide(budget, asked)) <= max(budget, floors)


@given(budgets, many)
def test_nothing_is_left_while_somebody_wants_more(budget: int, asked: list[ShareRequest]) -> None:
    grants = divide(budget, asked)
    is_short = any(grant < request.most for grant, request in zip(grants, asked, strict=True))
    if is_short and sum(request.floor for request in asked) <= budget:
        assert sum(grants) == budget


@given(budgets, many)
def test_everybody_gets_between_floor_and_request(budget: int, asked: list[ShareRequest]) -> None:
    for grant, request in zip(divide(budget, asked), asked, strict=True):
        assert request.floor <= grant <= request.most


@given(budgets, many)
def test_nobody_is_short_while_another_has_more_per_weight(
    budget: int, asked: list[ShareRequest]
) -> None:
    granted = list(zip(divide(budget, asked), asked, strict=True))
    for grant, request in granted:
        if grant < request.most:
            for other_grant, other in granted:
                # One connection of rounding aside, only a floor may give somebody more.
                if other_grant > other.floor:
                    assert (other_grant - 1) / other.weight <= (grant + 1) / request.weight


@given(budgets, many)
def test_a_larger_budget_takes_nothing_from_anybody_but_rounding(
    budget: int, asked: list[ShareRequest]
) -> None:
    before, after = divide(budget, asked), divide(budget + 5, asked)
    assert all(more >= less - 1 for less, more in zip(before, after, strict=True))
