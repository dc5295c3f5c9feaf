"""How long a tenant keeps a connection while others wait."""

from functools import partial

import pytest

from app.domain.time_sharing import (
    LONGEST_ROUND,
    MOVING,
    ROUND,
    SLICE_MOVES,
    longest_kept,
    most_moves,
    shortest_slice,
    slice_seconds,
)

PATIENCE = 5.0
of = partial(slice_seconds, acquire_timeout=PATIENCE)


def test_a_slice_is_the_fair_share_of_a_round_and_no_more_than_one_round() -> None:
    assert of(0.25, 0.01) == ROUND / 4
    assert of(3.0, 0.01) == ROUND


def test_a_slice_lasts_several_moves_where_many_wait() -> None:
    assert of(0.05, 0.015) == pytest.approx(SLICE_MOVES * 0.015)
    assert of(0.05, 0.015, 0.8) == pytest.approx(0.8 * SLICE_MOVES * 0.015)


def test_no_slice_is_made_longer_than_the_share_of_the_longest_round() -> None:
    assert of(0.1, 0.1) == pytest.approx(LONGEST_ROUND * PATIENCE / 10)
    assert of(3.0, 0.6) == pytest.approx(LONGEST_ROUND * PATIENCE)


def test_rounds_are_longer_where_callers_wait_for_longer_and_shorter_where_they_do_not() -> None:
    assert slice_seconds(0.1, 0.1, acquire_timeout=10) == pytest.approx(LONGEST_ROUND)
    assert slice_seconds(0.1, 0.01, acquire_timeout=10) == pytest.approx(ROUND / 10)
    assert slice_seconds(0.1, 0.01, acquire_timeout=1) == pytest.approx(LONGEST_ROUND / 10)


def test_no_slice_is_so_short_that_moves_take_more_than_their_share() -> None:
    assert of(0.001, 0.02) == shortest_slice(0.02) == pytest.approx(0.02 / MOVING)


def test_moves_may_take_all_of_a_light_tenants_shortest_slice_and_no_more() -> None:
    assert shortest_slice(0.02, 0.01) == 0.02
    assert shortest_slice(0.02, 2.0) == pytest.approx(2 * 0.02 / MOVING)


def test_one_connection_may_always_be_moved() -> None:
    assert [most_moves(limit) for limit in (1, 2, 10)] == [1, 1, 4]


def test_what_is_kept_for_long_is_kept_for_a_few_moves() -> None:
    assert longest_kept(0.02) == pytest.approx(0.08)
    assert longest_kept(0.0) == 0.0
