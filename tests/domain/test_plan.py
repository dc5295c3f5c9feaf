"""The plan: the steps from what a pool is to what is wanted of it."""

from dataclasses import replace
from typing import assert_never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.desired_state import DesiredPool
from app.domain.plan import ActualPool, Open, Pause, Resize, Resume, Step, pool_steps
from app.domain.pool import PoolSize
from tests.domain.values import NOON

SMALL = PoolSize(min_size=0, max_size=5)
KEPT = PoolSize(min_size=1, max_size=5)
LARGE = PoolSize(min_size=0, max_size=9)


def desired(size: PoolSize = SMALL, *, paused: bool = False) -> DesiredPool:
    return DesiredPool(pool_id="acme", size=size, paused=paused, generation=1, updated_at=NOON)


def actual(size: PoolSize = SMALL, *, paused: bool = False) -> ActualPool:
    return ActualPool(size=size, paused=paused)


@st.composite
def sizes(draw: st.DrawFn) -> PoolSize:
    max_size = draw(st.integers(1, 6))
    return PoolSize(
        min_size=draw(st.integers(0, max_size)),
        max_size=max_size,
        warmup_size=draw(st.integers(0, max_size)),
    )


wishes = st.builds(desired, sizes(), paused=st.booleans())
pools = st.builds(actual, sizes(), paused=st.booleans())


def after(step: Step, pool: ActualPool | None) -> ActualPool:
    """What carrying out *step* makes of *pool*."""
    match step:
        case Open(size=size, paused=paused):
            assert pool is None
            return actual(size, paused=paused)
        case Resize(before=before, after=size):
            assert pool is not None
            assert pool.size == before
            return replace(pool, size=size)
        case Pause() | Resume():
            assert pool is not None
            return replace(pool, paused=isinstance(step, Pause))
        case _:
            assert_never(step)


def carried_out(steps: list[Step], pool: ActualPool | None) -> ActualPool | None:
    for step in steps:
        pool = after(step, pool)
    return pool


@pytest.mark.parametrize(
    ("wish", "pool", "steps"),
    [
        (None, None, []),
        (None, actual(LARGE, paused=True), []),
        (desired(), None, []),
        (desired(paused=True), None, []),
        (desired(KEPT), None, [Open(size=KEPT, paused=False)]),
        (desired(KEPT, paused=True), None, []),
        (desired(), actual(), []),
        (desired(LARGE), actual(), [Resize(before=SMALL, after=LARGE)]),
        (desired(paused=True), actual(), [Pause()]),
        (desired(), actual(paused=True), [Resume()]),
        (desired(LARGE, paused=True), actual(), [Resize(before=SMALL, after=LARGE), Pause()]),
        (desired(LARGE), actual(paused=True), [Resize(before=SMALL, after=LARGE), Resume()]),
    ],
)
def test_the_plan_is_what_differs(
    wish: DesiredPool | None, pool: ActualPool | None, steps: list[Step]
) -> None:
    assert pool_steps(wish, pool) == steps


@pytest.mark.parametrize("paused", [False, True])
def test_a_pool_somebody_asks_for_now_is_opened_as_desired(*, paused: bool) -> None:
    wish = desired(paused=paused)
    assert pool_steps(wish, None, open_now=True) == [Open(size=SMALL, paused=paused)]


@given(wishes, st.booleans())
def test_what_is_as_it_should_be_needs_no_step(wish: DesiredPool, open_now: bool) -> None:  # noqa: FBT001
    assert pool_steps(wish, actual(wish.size, paused=wish.paused), open_now=open_now) == []


@given(wishes, st.none() | pools)
def test_carrying_out_the_plan_makes_the_pool_what_is_desired(
    wish: DesiredPool, pool: ActualPool | None
) -> None:
    made = carried_out(pool_steps(wish, pool, open_now=True), pool)
    assert made == actual(wish.size, paused=wish.paused)


@given(wishes, st.none() | pools)
def test_once_carried_out_there_is_nothing_left_to_do(
    wish: DesiredPool, pool: ActualPool | None
) -> None:
    assert pool_steps(wish, carried_out(pool_steps(wish, pool), pool)) == []


@given(pools)
def test_a_pool_nobody_asked_anything_of_stays_as_it_is(pool: ActualPool) -> None:
    assert pool_steps(None, pool) == pool_steps(None, pool, open_now=True) == []


@given(wishes)
def test_by_itself_only_a_working_pool_that_keeps_connections_is_opened(wish: DesiredPool) -> None:
    assert bool(pool_steps(wish, None)) == (wish.size.min_size > 0 and not wish.paused)
