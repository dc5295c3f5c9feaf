"""Erlang-C: the published staffing numbers, the closed formula, and its laws."""

from math import exp, factorial, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisor.erlang import OfferedLoad, late_share, smallest_size

loads = st.builds(
    OfferedLoad,
    erlangs=st.floats(0.01, 60.0),
    hold=st.floats(0.001, 5.0),
    cv2=st.floats(0.0, 16.0),
)
patiences = st.floats(0.0, 2.0)
shares = st.floats(0.0001, 0.5)


def by_the_book(load: OfferedLoad, size: int, patience: float) -> float:
    """Erlang's C as in textbooks, summed term by term."""
    a = load.erlangs
    if size <= a:
        return 1.0
    last = a**size / factorial(size) * size / (size - a)
    waits = last / (sum(a**k / factorial(k) for k in range(size)) + last)
    return waits * exp(-(size - a) * patience / (load.hold * (1 + load.cv2) / 2))


@pytest.mark.parametrize(
    ("offered", "sizes"),
    [
        (0.2, (3, 2, 2)),
        (1, (4, 3, 3)),
        (2, (6, 4, 4)),
        (5, (10, 8, 7)),
        (10, (16, 13, 12)),
        (20, (28, 23, 22)),
        (40, (49, 43, 42)),
    ],
)
def test_the_staffing_table_comes_out(offered: float, sizes: tuple[int, ...]) -> None:
    load = OfferedLoad(erlangs=offered, hold=0.02, cv2=2.25)
    assert tuple(smallest_size(load, late, 0.01, 100) for late in (0.01, 0.05, 0.1)) == sizes


@given(loads, st.integers(1, 80), patiences)
def test_it_agrees_with_the_closed_formula(load: OfferedLoad, size: int, patience: float) -> None:
    assert late_share(load, size, patience) == pytest.approx(
        by_the_book(load, size, patience), rel=1e-6, abs=1e-12
    )


def test_a_single_connection_is_the_textbook_queue() -> None:
    # M/M/1: P(W > t) = rho exp(-(1 - rho) t / S)
    assert late_share(OfferedLoad(erlangs=0.5, hold=0.1), 1, 0.1) == pytest.approx(0.5 * exp(-0.5))


@given(loads, patiences, shares)
def test_the_size_is_enough_and_one_less_is_not(
    load: OfferedLoad, patience: float, share: float
) -> None:
    size = smallest_size(load, patience, share, 10_000)
    assert late_share(load, size, patience) <= share
    assert size == 1 or late_share(load, size - 1, patience) > share


@given(loads, patiences, shares, st.integers(1, 50))
def test_it_never_asks_for_more_than_there_may_be(
    load: OfferedLoad, patience: float, share: float, most: int
) -> None:
    assert 1 <= smallest_size(load, patience, share, most) <= most


@given(loads, st.floats(1.0, 3.0), patiences, shares)
def test_more_load_never_needs_fewer(
    load: OfferedLoad, growth: float, patience: float, share: float
) -> None:
    more = OfferedLoad(erlangs=load.erlangs * growth, hold=load.hold, cv2=load.cv2)
    assert smallest_size(more, patience, share, 500) >= smallest_size(load, patience, share, 500)


@given(loads, st.integers(1, 80), patiences)
def test_one_connection_more_never_makes_more_callers_late(
    load: OfferedLoad, size: int, patience: float
) -> None:
    assert late_share(load, size + 1, patience) <= late_share(load, size, patience) + 1e-12


@pytest.mark.parametrize(("size", "share"), [(0, 1.0), (3, 1.0), (4, 1.0)])
def test_a_load_beyond_the_size_makes_everybody_late(size: int, share: float) -> None:
    assert late_share(OfferedLoad(erlangs=4.0, hold=0.1), size, 0.05) == share
    assert late_share(OfferedLoad(erlangs=4.0, hold=0.1), 5, inf) == 0.0


def test_no_load_needs_nothing_and_makes_nobody_late() -> None:
    assert smallest_size(OfferedLoad(erlangs=0.0, hold=0.0), 0.05, 0.01, 100) == 0
    assert late_share(OfferedLoad(erlangs=0.0, hold=0.0), 0, 0.05) == 0.0
