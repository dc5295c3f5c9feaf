"""The number of concurrent logins; a slow one delays no other."""

import pytest

from app.pools.scheduling.connect_limiter import ConnectLimiter
from tests.fixtures.unreal import UnrealClock


@pytest.fixture
def clock() -> UnrealClock:
    return UnrealClock()


@pytest.mark.parametrize(("limit", "of_one"), [(1, 1), (2, 1), (4, 3)])
def test_one_pool_leaves_a_slot_to_the_others_if_there_are_several(
    clock: UnrealClock, limit: int, of_one: int
) -> None:
    limiter = ConnectLimiter(limit, clock)
    assert (limiter.free, limiter.most_of_one) == (limit, of_one)


def test_a_slot_is_in_use_until_it_is_released(clock: UnrealClock) -> None:
    limiter = ConnectLimiter(2, clock)
    first, second = limiter.take(), limiter.take()
    assert (limiter.busy, limiter.free) == (2, 0)
    first.release()
    first.release()
    assert (limiter.busy, limiter.free) == (1, 1)
    second.release()
    assert limiter.busy == 0


def test_what_is_slow_gives_its_slot_up_once_and_others_are_told(clock: UnrealClock) -> None:
    limiter, freed = ConnectLimiter(1, clock, long=1.0), []
    limiter.when_given_up(lambda: freed.append(limiter.free))
    slow = limiter.take()
    clock.let_pass(0.9)
    assert (limiter.busy, freed) == (1, [])
    clock.let_pass(0.1)
    assert (limiter.busy, freed) == (0, [1])
    limiter.take()
    slow.release()
    assert limiter.busy == 1


def test_what_was_released_in_time_gives_nothing_up_and_leaves_no_timer(clock: UnrealClock) -> None:
    limiter, freed = ConnectLimiter(1, clock, long=1.0), []
    limiter.when_given_up(lambda: freed.append(limiter.free))
    limiter.take().release()
    assert not clock.due
    limiter.take()
    clock.let_pass(0.5)
    assert (limiter.busy, freed) == (1, [])
