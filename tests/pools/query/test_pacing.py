"""Rows become JSON in steps, so that a long result does not block the event loop."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.pools.query.pacing import in_steps

STEP = 64 * 1024
PIECE = 64


@given(st.lists(st.integers(0, 2 * STEP), max_size=12), st.integers(0, 1664))
def test_each_step_is_bounded_and_no_row_is_lost(sizes: list[int], pieces: int) -> None:
    rows = [bytes([number]) * size for number, size in enumerate(sizes)]
    steps = list(in_steps(rows, pieces=pieces))
    assert [row for step in steps for row in step] == rows
    works = [sum(len(row) + PIECE * pieces for row in step) for step in steps]
    assert all(work <= STEP or len(step) == 1 for work, step in zip(works, steps, strict=True))
    # As few as possible: no two that follow each other fit into one.
    assert all(one + other > STEP for one, other in pairwise(works))
