"""The policy, case by case: who gets a connection, who gives one up, and who is left alone."""

import pytest

from tests.pools.model_pool import ModelPool, ModelServer


@pytest.fixture
def server() -> ModelServer:
    return ModelServer(3)


def test_nothing_is_allowed_until_the_budget_was_asked() -> None:
    server = ModelServer()
    pool = ModelPool("pool", server)
    pool.ask()
    assert (server.budget.limit, server.budget.used, pool.connecting) == (0, 0, 0)
    assert server.budget.is_contended
    server.set_limit(1)
    assert (server.budget.used, pool.connecting, server.budget.is_contended) == (1, 1, False)


def test_what_is_free_is_given_to_whoever_asks(server: ModelServer) -> None:
    pool = ModelPool("pool", server).with_leased(3)
    assert (len(pool.leased), server.budget.used, server.budget.is_contended) == (3, 3, False)
    assert server.budget.is_exhausted
    pool.ask()
    assert (pool.connecting, server.budget.used, server.budget.is_contended) == (0, 3, True)


def test_a_connection_that_never_came_gives_its_place_back(server: ModelServer) -> None:
    pool = ModelPool("pool", server)
    pool.ask()
    pool.callers.clear()
    pool.connect_in_vain()
    assert (server.budget.used, server.budget.is_exhausted) == (0, False)


def test_an_idle_connection_of_another_pool_is_taken_back(server: ModelServer) -> None:
    rich, poor = ModelPool("rich", server).with_idle(3), ModelPool("poor", server)
    poor.ask()
    assert (len(rich.idle), rich.closing, poor.connecting) == (2, 1, 0)
    rich.close_one()
    assert (poor.connecting, server.budget.used, server.budget.is_contended) == (1, 3, False)


def test_no_more_is_taken_back_than_is_wanted_and_not_on_its_way(
    server: ModelServer,
) -> None:
    rich, poor = ModelPool("rich", server).with_idle(3), ModelPool("poor", server)
    poor.ask()
    poor.ask()
    server.dispatcher.run()
    server.dispatcher.run()
    assert (len(rich.idle), rich.closing) == (1, 2)


def test_the_pool_used_longest_ago_gives_first(server: ModelServer) -> None:
    used_first, used_last = ModelPool("first", server), ModelPool("last", server)
    used_first.with_idle(2)
    used_last.with_idle(1)
    server.budget.note_use(used_first, server.clock.now)
    ModelPool("poor", server).ask()
    assert (used_first.closing, used_last.closing) == (0, 1)


def test_no_pool_gives_below_its_min_size(server: ModelServer) -> None:
    kept = ModelPool("kept", server, min_size=2).with_idle(3)
    ModelPool("poor", server).ask(3)
    assert (len(kept.idle), kept.closing) == (2, 1)


def test_a_pool_that_gave_up_is_not_served(server: ModelServer) -> None:
    rich, poor = ModelPool("rich", server).with_leased(3), ModelPool("poor", server)
    poor.ask()
    poor.give_up()
    rich.release()
    assert (len(rich.idle), rich.closing, poor.connecting) == (1, 0, 0)
    assert not server.budget.is_contended


def test_a_closed_pool_wants_nothing_and_gives_nothing(server: ModelServer) -> None:
    closed, poor = ModelPool("closed", server).with_idle(3), ModelPool("poor", server)
    server.budget.forget(closed)
    poor.ask()
    assert closed.closing == 0
    assert server.budget.is_contended
    server.budget.forget(poor)
    assert not server.budget.is_contended


def test_what_comes_free_goes_to_the_smallest_share(server: ModelServer) -> None:
    noisy = ModelPool("noisy", server).with_leased(2)
    last = ModelPool("last", server).with_leased(1)
    noisy.ask()
    light, heavy = ModelPool("light", server), ModelPool("heavy", server, weight=5)
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
    server = ModelServer(held)
    holder = ModelPool("holder", server, weight=weight).with_leased(held)
    holder.ask()
    ModelPool("poor", server).ask()
    holder.leased.pop()
    assert server.dispatcher.keeps(holder) is not yields


@pytest.mark.parametrize(
    ("weight", "kept", "given"), [(1, 3, 3), (2, 2, 4), (5, 1, 5)], ids=["equal", "twice", "five"]
)
def test_what_is_on_its_way_to_a_pool_counts_as_its_own(weight: int, kept: int, given: int) -> None:
    server = ModelServer(6)
    rich, poor = ModelPool("rich", server).with_leased(6), ModelPool("poor", server, weight=weight)
    rich.ask(6)
    poor.ask(6)
    for _ in range(6):
        rich.release()
    assert (len(rich.leased), len(rich.idle), rich.closing) == (kept, 0, given)
    for _ in range(given):
        rich.close_one()
    assert (poor.connecting, rich.connecting) == (given, 0)


def test_connections_being_opened_count_for_the_pool_that_opens_them() -> None:
    server = ModelServer(6)
    rich, poor = ModelPool("rich", server).with_leased(3), ModelPool("poor", server)
    rich.resize(3)
    poor.ask(3)
    rich.ask(3)
    poor.ask(3)
    assert poor.connecting == 3
    rich.release()
    assert (len(rich.leased), rich.closing) == (3, 0)


def test_a_raised_limit_is_divided_among_all_who_wait() -> None:
    server = ModelServer(0)
    first, second, third = (ModelPool(name, server) for name in ("first", "second", "third"))
    for pool in (first, second, third):
        pool.ask(5)
    server.set_limit(6)
    assert [pool.connecting for pool in (first, second, third)] == [2, 2, 2]


def test_fresh_connections_are_taken_back_only_if_there_are_no_others() -> None:
    server = ModelServer(4)
    used_first = ModelPool("first", server).with_idle(1).with_idle(1, fresh=True)
    used_last = ModelPool("last", server).with_idle(2, fresh=True)
    poor = ModelPool("poor", server)
    poor.ask(2)
    assert (used_first.closing, used_last.closing) == (2, 0)
    poor.ask()
    assert (used_first.closing, used_last.closing) == (2, 1)


def test_a_holder_for_whom_nobody_waits_need_not_yield(server: ModelServer) -> None:
    holder = ModelPool("holder", server).with_leased(3)
    ModelPool("poor", server).ask()
    assert server.dispatcher.keeps(holder)
    holder.release()
    assert (len(holder.idle), holder.closing) == (0, 1)


def test_a_holder_need_not_yield_when_enough_is_on_its_way(server: ModelServer) -> None:
    holder, poor = ModelPool("holder", server).with_leased(3), ModelPool("poor", server)
    holder.ask(3)
    poor.ask()
    holder.release()
    assert holder.closing == 1
    server.budget.forget(holder)
    assert server.dispatcher.keeps(holder)


def test_lowering_the_limit_cuts_nothing_and_opens_nothing(server: ModelServer) -> None:
    pool = ModelPool("pool", server).with_leased(3)
    server.set_limit(1)
    assert (server.budget.limit, server.budget.used, len(pool.leased)) == (1, 3, 3)
    pool.ask()
    pool.lose()
    pool.close_one()
    assert (server.budget.used, pool.connecting) == (2, 0)


def test_above_a_lowered_limit_enough_is_taken_back_to_serve_who_waits() -> None:
    server = ModelServer(4)
    rich = [ModelPool(name, server).with_idle(1) for name in ("one", "two", "three")]
    ModelPool("busy", server).with_leased(1)
    server.set_limit(2)
    poor = ModelPool("poor", server)
    poor.ask()
    for pool in rich:
        while pool.closing:
            pool.close_one()
    assert (poor.connecting, server.budget.used) == (1, 2)


def test_a_limit_lowered_while_a_connection_closes_forgets_nobody() -> None:
    server = ModelServer(3)
    rich = [ModelPool(name, server).with_idle(1) for name in ("one", "two")]
    ModelPool("busy", server).with_leased(1)
    poor = ModelPool("poor", server)
    poor.ask()
    server.set_limit(2)
    for pool in rich:
        while pool.closing:
            pool.close_one()
    assert (poor.connecting, server.budget.used) == (1, 2)


def flooded(server: ModelServer, held: int) -> ModelPool:
    """A pool that holds so many connections and wants more than there are."""
    noisy = ModelPool("noisy", server).with_leased(held)
    noisy.resize(server.budget.limit)
    noisy.ask(server.budget.limit)
    return noisy


def test_a_flood_leaves_a_pool_used_lately_its_last_connection_for_a_moment() -> None:
    server = ModelServer(4)
    light = ModelPool("light", server).with_idle(2)
    noisy = flooded(server, 2)
    assert (len(light.idle), light.closing) == (1, 1)
    light.close_one()
    assert (noisy.connecting, len(light.idle)) == (1, 1)
    server.clock.let_pass(1.1)
    assert (len(light.idle), light.closing) == (0, 1)


def test_a_modest_claim_is_not_refused_what_a_flood_is() -> None:
    server = ModelServer(4)
    light = ModelPool("light", server).with_idle(1)
    flooded(server, 3)
    newcomer = ModelPool("newcomer", server)
    newcomer.ask()
    assert light.closing == 1
    light.close_one()
    assert newcomer.connecting == 1


def test_a_modest_claim_finds_a_place_free_and_the_next_is_cleared_behind_it() -> None:
    server = ModelServer(9)
    first, second = (
        ModelPool("first", server).with_idle(1),
        ModelPool("second", server).with_idle(1),
    )
    noisy = flooded(server, 4)
    noisy.resize(9)
    noisy.ask(9 - len(noisy.callers))
    for _ in range(noisy.connecting):
        noisy.connect()
    for pool in (first, second):
        while pool.closing:
            pool.close_one()
    assert (server.budget.used, len(first.idle) + len(second.idle)) == (8, 1)
    newcomer = ModelPool("newcomer", server)
    newcomer.ask()
    assert newcomer.connecting == 1
    assert first.closing + second.closing == 1


@pytest.mark.parametrize(("lately", "free"), [(1, 1), (2, 2), (5, 3)])
def test_of_twenty_places_three_stay_free_once_as_many_pools_used_one_lately(
    lately: int, free: int
) -> None:
    server = ModelServer(20)
    used = [ModelPool(str(number), server).with_idle(1) for number in range(lately)]
    noisy = flooded(server, 20 - lately)
    for pool in used:
        while pool.closing:
            pool.close_one()
    while noisy.connecting:
        noisy.connect()
    assert server.budget.limit - server.budget.used == free
    newcomers = [ModelPool(f"new {number}", server) for number in range(free)]
    for newcomer in newcomers:
        newcomer.ask()
    assert [newcomer.connecting for newcomer in newcomers] == [1] * free


def test_who_is_alone_or_among_floods_only_has_everything() -> None:
    server = ModelServer(14)
    one, other = ModelPool("one", server), ModelPool("other", server)
    for pool in (one, other):
        pool.resize(14)
        pool.ask(14)
    for pool in (one, other):
        while pool.connecting:
            pool.connect()
    assert (server.budget.used, len(one.leased) + len(other.leased)) == (14, 14)


def test_a_flood_gives_up_one_connection_when_the_reserve_has_no_place_left() -> None:
    server = ModelServer(14)
    light = ModelPool("light", server).with_idle(1)
    light.ask()
    noisy = flooded(server, 13)
    assert (len(light.leased), len(noisy.leased), server.budget.used) == (1, 13, 14)
    noisy.release()
    noisy.release()
    assert (noisy.closing, len(noisy.leased)) == (1, 12)
    noisy.close_one()
    assert (noisy.connecting, server.budget.used) == (0, 13)
    server.clock.let_pass(1.1)
    assert (noisy.connecting, server.budget.used) == (1, 14)


def test_two_pools_used_a_moment_ago_do_not_pass_a_place_to_and_fro() -> None:
    server = ModelServer(20)
    pools = [ModelPool(name, server) for name in ("one", "other")]
    for pool in pools:
        pool.resize(20)
        pool.with_leased(10)
    for pool in pools:
        pool.ask(5)
        server.budget.note_use(pool, server.clock.now)
    pools[0].leased.pop()
    server.budget.give_back()
    server.dispatcher.run()
    assert sum(pool.connecting for pool in pools) == 1


def test_a_connection_found_dead_closes_and_the_next_one_serves(server: ModelServer) -> None:
    pool = ModelPool("pool", server).with_idle(2)
    pool.idle[-1].is_current = False
    pool.ask()
    assert (pool.served, len(pool.idle), pool.closing) == ([0], 0, 1)


def test_more_than_a_pool_may_have_closes_the_longest_unused_first(server: ModelServer) -> None:
    pool = ModelPool("pool", server).with_idle(3)
    kept = pool.idle[-1]
    pool.resize(1)
    assert (list(pool.idle), pool.closing) == ([kept], 2)


def test_a_pool_that_cannot_open_is_passed_over(server: ModelServer) -> None:
    failing, other = ModelPool("failing", server), ModelPool("other", server)
    failing.can_open = False
    failing.ask(3)
    other.ask(3)
    assert (failing.connecting, other.connecting) == (0, 3)
