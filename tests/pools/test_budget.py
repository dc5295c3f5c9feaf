"""The budget: who gets a connection, who gives one up, and who is left alone."""

import pytest

from tests.pools.budget_client import Pool, TimedBudget


@pytest.fixture
def budget() -> TimedBudget:
    return TimedBudget(3)


def test_nothing_is_allowed_until_the_server_was_asked() -> None:
    budget = TimedBudget()
    pool = Pool("pool", budget)
    pool.ask()
    assert (budget.limit, budget.used, pool.connecting) == (0, 0, 0)
    assert budget.is_contended
    budget.set_limit(1)
    assert (budget.used, pool.connecting, budget.is_contended) == (1, 1, False)


def test_what_is_free_is_given_to_whoever_asks(budget: TimedBudget) -> None:
    pool = Pool("pool", budget).with_leased(3)
    assert (pool.leased, budget.used, budget.is_contended) == (3, 3, False)
    assert budget.is_exhausted
    pool.ask()
    assert (pool.connecting, budget.used, budget.is_contended) == (0, 3, True)


def test_a_connection_that_never_came_gives_its_place_back(budget: TimedBudget) -> None:
    pool = Pool("pool", budget)
    pool.ask()
    pool.waiting = 0
    pool.connect_in_vain()
    assert (budget.used, budget.is_exhausted) == (0, False)


def test_an_idle_connection_of_another_pool_is_taken_back(budget: TimedBudget) -> None:
    rich, poor = Pool("rich", budget).with_idle(3), Pool("poor", budget)
    poor.ask()
    assert (rich.idle, rich.closing, poor.connecting) == (2, 1, 0)
    rich.close_one()
    assert (poor.connecting, budget.used, budget.is_contended) == (1, 3, False)


def test_no_more_is_taken_back_than_is_wanted_and_not_on_its_way(
    budget: TimedBudget,
) -> None:
    rich, poor = Pool("rich", budget).with_idle(3), Pool("poor", budget)
    poor.ask()
    poor.ask()
    budget.reclaim()
    budget.reclaim()
    assert (rich.idle, rich.closing) == (1, 2)


def test_the_pool_used_longest_ago_gives_first(budget: TimedBudget) -> None:
    used_first, used_last = Pool("first", budget), Pool("last", budget)
    used_first.with_idle(2)
    used_last.with_idle(1)
    budget.used_now(used_first, budget.clock.now)
    Pool("poor", budget).ask()
    assert (used_first.closing, used_last.closing) == (0, 1)


def test_no_pool_gives_below_its_min_size(budget: TimedBudget) -> None:
    kept = Pool("kept", budget).with_idle(3)
    kept.min_size = 2
    Pool("poor", budget).ask(3)
    assert (kept.idle, kept.closing) == (2, 1)


def test_a_pool_that_gave_up_is_not_served(budget: TimedBudget) -> None:
    rich, poor = Pool("rich", budget).with_leased(3), Pool("poor", budget)
    poor.ask()
    poor.waiting = 0
    rich.release()
    assert (rich.idle, rich.closing, poor.connecting) == (1, 0, 0)
    assert not budget.is_contended


def test_a_closed_pool_wants_nothing_and_gives_nothing(budget: TimedBudget) -> None:
    closed, poor = Pool("closed", budget).with_idle(3), Pool("poor", budget)
    budget.forget(closed)
    poor.ask()
    assert closed.closing == 0
    assert budget.is_contended
    budget.forget(poor)
    assert not budget.is_contended


def test_what_comes_free_goes_to_the_smallest_share(budget: TimedBudget) -> None:
    noisy = Pool("noisy", budget).with_leased(2)
    last = Pool("last", budget).with_leased(1)
    noisy.ask()
    light, heavy = Pool("light", budget), Pool("heavy", budget, weight=5)
    light.ask()
    heavy.ask()
    last.release()
    last.close_one()
    assert (heavy.connecting, light.connecting, noisy.connecting) == (1, 0, 0)


@pytest.mark.parametrize(
    ("held", "weight", "yields"), [(3, 1, True), (1, 1, False), (3, 3, False), (3, 2, True)]
)
def test_a_holder_yields_only_to_whom_it_leaves_with_less(
    held: int, weight: int, *, yields: bool
) -> None:
    budget = TimedBudget(held)
    holder = Pool("holder", budget, weight=weight).with_leased(held)
    holder.ask()
    Pool("poor", budget).ask()
    holder.leased -= 1
    assert budget.must_yield(holder) is yields


@pytest.mark.parametrize(
    ("weight", "kept", "given"), [(1, 3, 3), (2, 2, 4), (5, 1, 5)], ids=["equal", "twice", "five"]
)
def test_what_is_on_its_way_to_a_pool_counts_as_its_own(weight: int, kept: int, given: int) -> None:
    budget = TimedBudget(6)
    rich, poor = Pool("rich", budget).with_leased(6), Pool("poor", budget, weight=weight)
    rich.ask(6)
    poor.ask(6)
    for _ in range(6):
        rich.release()
    assert (rich.leased, rich.idle, rich.closing) == (kept, 0, given)
    for _ in range(given):
        rich.close_one()
    assert (poor.connecting, rich.connecting) == (given, 0)


def test_connections_being_opened_count_for_the_pool_that_opens_them() -> None:
    budget = TimedBudget(6)
    rich, poor = Pool("rich", budget).with_leased(3), Pool("poor", budget)
    rich.max_size = 3
    poor.ask(3)
    rich.ask(3)
    poor.ask(3)
    assert poor.connecting == 3
    rich.release()
    assert (rich.leased, rich.closing) == (3, 0)


def test_a_raised_limit_is_divided_among_all_who_wait() -> None:
    budget = TimedBudget(0)
    first, second, third = (Pool(name, budget) for name in ("first", "second", "third"))
    for pool in (first, second, third):
        pool.ask(5)
    budget.set_limit(6)
    assert [pool.connecting for pool in (first, second, third)] == [2, 2, 2]


def test_fresh_connections_are_taken_back_only_if_there_are_no_others() -> None:
    budget = TimedBudget(4)
    used_first, used_last = (
        Pool("first", budget).with_idle(2),
        Pool("last", budget).with_idle(2),
    )
    used_first.fresh, used_last.fresh = 1, 2
    poor = Pool("poor", budget)
    poor.ask(2)
    assert (used_first.closing, used_last.closing) == (2, 0)
    poor.ask()
    assert (used_first.closing, used_last.closing) == (2, 1)


def test_a_holder_for_whom_nobody_waits_need_not_yield(budget: TimedBudget) -> None:
    holder = Pool("holder", budget).with_leased(3)
    Pool("poor", budget).ask()
    assert not budget.must_yield(holder)
    holder.release()
    assert (holder.idle, holder.closing) == (0, 1)


def test_a_holder_need_not_yield_when_enough_is_on_its_way(budget: TimedBudget) -> None:
    holder, poor = Pool("holder", budget).with_leased(3), Pool("poor", budget)
    holder.ask(3)
    poor.ask()
    holder.release()
    assert holder.closing == 1
    poor.waiting = 1
    budget.forget(holder)
    assert not budget.must_yield(holder)


def test_lowering_the_limit_cuts_nothing_and_opens_nothing(budget: TimedBudget) -> None:
    pool = Pool("pool", budget).with_leased(3)
    budget.set_limit(1)
    assert (budget.limit, budget.used, pool.leased) == (1, 3, 3)
    pool.ask()
    pool.leased -= 1
    pool.begin_close()
    pool.close_one()
    assert (budget.used, pool.connecting) == (2, 0)


def test_above_a_lowered_limit_enough_is_taken_back_to_serve_who_waits() -> None:
    budget = TimedBudget(4)
    rich = [Pool(name, budget).with_idle(1) for name in ("one", "two", "three")]
    Pool("busy", budget).with_leased(1)
    budget.set_limit(2)
    poor = Pool("poor", budget)
    poor.ask()
    for pool in rich:
        while pool.closing:
            pool.close_one()
    assert (poor.connecting, budget.used) == (1, 2)


def test_a_limit_lowered_while_a_connection_closes_forgets_nobody() -> None:
    budget = TimedBudget(3)
    rich = [Pool(name, budget).with_idle(1) for name in ("one", "two")]
    Pool("busy", budget).with_leased(1)
    poor = Pool("poor", budget)
    poor.ask()
    budget.set_limit(2)
    for pool in rich:
        while pool.closing:
            pool.close_one()
    assert (poor.connecting, budget.used) == (1, 2)


def flooded(budget: TimedBudget, held: int) -> Pool:
    """A pool that holds so many connections and wants more than there are."""
    noisy = Pool("noisy", budget).with_leased(held)
    noisy.max_size = budget.limit
    noisy.ask(budget.limit)
    return noisy


def test_a_flood_leaves_a_pool_used_lately_its_last_connection_for_a_moment() -> None:
    budget = TimedBudget(4)
    light = Pool("light", budget).with_idle(2)
    noisy = flooded(budget, 2)
    assert (light.idle, light.closing) == (1, 1)
    light.close_one()
    assert (noisy.connecting, light.idle) == (1, 1)
    budget.clock.let_pass(1.1)
    assert (light.idle, light.closing) == (0, 1)


def test_a_modest_claim_is_not_refused_what_a_flood_is() -> None:
    budget = TimedBudget(4)
    light = Pool("light", budget).with_idle(1)
    flooded(budget, 3)
    newcomer = Pool("newcomer", budget)
    newcomer.ask()
    assert light.closing == 1
    light.close_one()
    assert newcomer.connecting == 1


def test_a_modest_claim_finds_a_place_free_and_the_next_is_cleared_behind_it() -> None:
    budget = TimedBudget(9)
    first, second = Pool("first", budget).with_idle(1), Pool("second", budget).with_idle(1)
    noisy = flooded(budget, 4)
    noisy.max_size = 9
    noisy.waiting = 9
    noisy.dispatch()
    for _ in range(noisy.connecting):
        noisy.connect()
    for pool in (first, second):
        while pool.closing:
            pool.close_one()
    assert (budget.used, first.idle + second.idle) == (8, 1)
    newcomer = Pool("newcomer", budget)
    newcomer.ask()
    assert newcomer.connecting == 1
    assert first.closing + second.closing == 1


@pytest.mark.parametrize(("lately", "free"), [(1, 1), (2, 2), (5, 3)])
def test_of_twenty_places_three_stay_free_once_as_many_pools_used_one_lately(
    lately: int, free: int
) -> None:
    budget = TimedBudget(20)
    used = [Pool(str(number), budget).with_idle(1) for number in range(lately)]
    noisy = flooded(budget, 20 - lately)
    for pool in used:
        while pool.closing:
            pool.close_one()
    while noisy.connecting:
        noisy.connect()
    assert budget.limit - budget.used == free
    newcomers = [Pool(f"new {number}", budget) for number in range(free)]
    for newcomer in newcomers:
        newcomer.ask()
    assert [newcomer.connecting for newcomer in newcomers] == [1] * free


def test_who_is_alone_or_among_floods_only_has_everything() -> None:
    budget = TimedBudget(14)
    one, other = Pool("one", budget), Pool("other", budget)
    for pool in (one, other):
        pool.max_size = 14
        pool.ask(14)
    for pool in (one, other):
        while pool.connecting:
            pool.connect()
    assert (budget.used, one.leased + other.leased) == (14, 14)


def test_a_flood_gives_up_one_connection_when_the_reserve_has_no_place_left() -> None:
    budget = TimedBudget(14)
    light = Pool("light", budget).with_idle(1)
    light.ask()
    noisy = flooded(budget, 13)
    assert (light.leased, noisy.leased, budget.used) == (1, 13, 14)
    noisy.release()
    noisy.release()
    assert (noisy.closing, noisy.leased) == (1, 12)
    noisy.close_one()
    assert (noisy.connecting, budget.used) == (0, 13)
    budget.clock.let_pass(1.1)
    assert (noisy.connecting, budget.used) == (1, 14)


def test_two_pools_used_a_moment_ago_do_not_pass_a_place_to_and_fro() -> None:
    budget = TimedBudget(20)
    pools = [Pool(name, budget) for name in ("one", "other")]
    for pool in pools:
        pool.max_size = 20
        pool.with_leased(10)
    for pool in pools:
        pool.ask(5)
        budget.used_now(pool, budget.clock.now)
    asked = budget.takes
    pools[0].leased -= 1
    budget.give_back()
    assert sum(pool.connecting for pool in pools) == 1
    assert budget.takes - asked < 10
