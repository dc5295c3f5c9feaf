"""The policy, case by case: who gets a connection, who gives one up, and who keeps theirs."""

from typing import Any, cast

import pytest

from app.domain.time_sharing import KEPT_MOVES, MOVING, ROUND
from app.pools.scheduling.policy import decide, kept_seconds
from app.pools.scheduling.scheduled_pool import ScheduledPool
from app.pools.scheduling.waiter import Waiter
from tests.pools.scheduling.model_pool import MOVE_SECONDS, ModelPool, ModelServer, ModelWaiter


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
    pool.give_up()
    pool.connect_in_vain()
    assert (server.budget.used, server.budget.is_exhausted) == (0, False)


# -- connect slots ---------------------------------------------------------------------------------


def test_no_more_is_opened_at_a_time_than_there_are_slots() -> None:
    server = ModelServer(10, slots=2)
    pools = [ModelPool(name, server) for name in "abc"]
    for pool in pools:
        pool.ask(2)
    assert [pool.connecting for pool in pools] == [1, 1, 0]
    assert server.budget.used == 2
    pools[0].connect()
    assert [pool.connecting for pool in pools] == [0, 1, 1]


def test_a_place_goes_to_the_first_claim_at_the_time_when_a_slot_is_free() -> None:
    server = ModelServer(10, slots=1)
    busy, other, late = (ModelPool(name, server) for name in ("busy", "other", "late"))
    other.used(5.0)
    busy.ask()
    other.ask()
    late.ask()
    busy.connect()
    assert (late.connecting, other.connecting) == (1, 0)


def test_a_pool_leaves_the_last_slot_to_others() -> None:
    server = ModelServer(10, slots=3)
    flood, other = ModelPool("flood", server), ModelPool("other", server)
    flood.ask(8)
    assert flood.connecting == 2
    other.ask()
    assert other.connecting == 1


def test_a_login_under_way_counts_as_use_when_its_pool_wants_another_connection() -> None:
    server = ModelServer(10, slots=3)
    first, busy, new, other = (
        ModelPool(name, server) for name in ("first", "busy", "new", "other")
    )
    for pool in (busy, other):
        pool.used(0.01)
    first.ask(2)
    busy.ask()
    new.ask(2)
    other.ask()
    first.connect()
    first.connect()
    assert (new.connecting, busy.connecting, other.connecting) == (1, 1, 1)


def test_a_slow_login_gives_its_slot_up() -> None:
    server = ModelServer(10, slots=1)
    hung, other = ModelPool("hung", server), ModelPool("other", server)
    hung.ask()
    other.ask()
    assert other.connecting == 0
    server.clock.let_pass(1.0)
    assert (hung.connecting, other.connecting) == (1, 1)


def test_a_pool_with_its_fair_share_opens_none_while_another_login_is_under_way() -> None:
    server = ModelServer(10, slots=4)
    flood, light = ModelPool("flood", server).with_leased(5), ModelPool("light", server)
    light.ask(2)
    flood.ask(10)
    assert (light.connecting, flood.connecting) == (2, 0)
    light.connect()
    light.connect()
    assert flood.connecting == 1


# -- idle connections ------------------------------------------------------------------------------


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
    server.policy_executor.run()
    server.policy_executor.run()
    assert (len(rich.idle), rich.closing) == (1, 2)


def test_no_more_is_taken_back_than_can_be_opened_at_once() -> None:
    server = ModelServer(6, slots=2)
    rich, poor = ModelPool("rich", server).with_idle(6), ModelPool("poor", server)
    poor.ask(2)
    ModelPool("poor2", server).ask(2)
    assert (len(rich.idle), rich.closing) == (4, 2)


def test_the_connection_unused_for_longest_is_taken_first(server: ModelServer) -> None:
    used_first = ModelPool("first", server).with_idle(2)
    server.clock.let_pass(1)
    used_last = ModelPool("last", server).with_idle(1)
    ModelPool("poor", server).ask()
    assert (used_first.closing, used_last.closing) == (1, 0)


def test_an_event_looks_at_few_pools_however_many_keep_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ModelServer(200)
    thinking = [ModelPool(f"thinking{number}", server).with_leased(1) for number in range(200)]
    for pool in thinking:
        pool.comes_back_after(MOVE_SECONDS)
        pool.release()
    late = ModelPool("late", server)
    late.ask()
    looked_at: list[ScheduledPool] = []

    def counted(pool: ScheduledPool, *arguments: Any, **options: Any) -> float:
        looked_at.append(pool)
        return kept_seconds(pool, *arguments, **options)

    monkeypatch.setattr("app.pools.scheduling.policy.kept_seconds", counted)
    late.dispatch()
    assert late.callers
    assert len(looked_at) <= 2


def test_no_pool_gives_below_its_min_size(server: ModelServer) -> None:
    kept = ModelPool("kept", server, min_size=2).with_idle(3)
    ModelPool("poor", server).ask(3)
    assert (len(kept.idle), kept.closing) == (2, 1)


def test_while_the_min_size_of_all_pools_does_not_fit_none_is_kept(server: ModelServer) -> None:
    pools = [ModelPool(name, server, min_size=1).with_idle(1) for name in "ab"]
    leased = ModelPool("c", server, min_size=1).with_leased(1)
    server.set_limit(1)
    assert [len(pool.idle) for pool in pools] == [1, 1]
    executor = server.policy_executor
    executor.keep_min_size([*pools, leased], keeps=False)
    assert [pool.closing for pool in pools] == [1, 1]
    for pool in pools:
        pool.close_one()
    # Nobody opens it again without a caller, but whoever has one gets a connection.
    assert server.budget.used == 1
    assert leased.release()
    pools[0].ask()
    assert leased.closing == 1
    leased.close_one()
    pools[0].connect()
    assert pools[0].served
    server.set_limit(3)
    assert server.budget.used == 1
    executor.keep_min_size([*pools, leased], keeps=True)
    assert [pool.open for pool in (*pools, leased)] == [1, 1, 1]


def test_a_connection_is_kept_no_longer_than_its_tenant_takes_to_come_back() -> None:
    server = ModelServer(1)
    thinking, poor = ModelPool("thinking", server).with_leased(1), ModelPool("poor", server)
    thinking.comes_back_after(MOVE_SECONDS)
    poor.ask()
    thinking.release()
    assert (len(thinking.idle), thinking.closing) == (1, 0)
    server.clock.let_pass(MOVE_SECONDS * 0.9)
    assert (len(thinking.idle), thinking.closing) == (1, 0)
    server.clock.let_pass(MOVE_SECONDS * 0.5)
    assert (len(thinking.idle), thinking.closing) == (0, 1)


def test_a_tenant_that_comes_back_in_time_finds_its_connection() -> None:
    server = ModelServer(1)
    thinking = ModelPool("thinking", server).with_leased(1)
    thinking.comes_back_after(MOVE_SECONDS)
    ModelPool("poor", server).ask()
    thinking.release()
    server.clock.let_pass(MOVE_SECONDS)
    thinking.ask()
    assert (len(thinking.leased), thinking.closing) == (1, 0)


@pytest.mark.parametrize("moves", [0, KEPT_MOVES + 1], ids=["unknown", "longer than moves take"])
def test_a_connection_is_not_kept_for_a_tenant_that_returns_too_late_or_at_an_unknown_time(
    moves: float,
) -> None:
    server = ModelServer(1)
    away, poor = ModelPool("away", server).with_leased(1), ModelPool("poor", server)
    if moves:
        away.comes_back_after(moves * MOVE_SECONDS)
    poor.ask()
    away.release()
    assert (len(away.idle), away.closing) == (0, 1)


def test_a_small_tenants_connection_is_kept_from_a_flood_for_the_time_of_a_few_moves() -> None:
    server = ModelServer(3)
    light, flood = ModelPool("light", server).with_leased(1), ModelPool("flood", server)
    light.comes_back_after(10 * KEPT_MOVES * MOVE_SECONDS)
    light.used(0.1)
    flood.with_leased(2).used(10.0)
    flood.ask(5)
    light.release()
    server.clock.let_pass(KEPT_MOVES * MOVE_SECONDS * 0.9)
    assert (len(light.idle), light.closing) == (1, 0)
    server.clock.let_pass(KEPT_MOVES * MOVE_SECONDS * 0.2)
    assert (len(light.idle), light.closing) == (0, 1)


def test_while_nobody_wants_it_an_idle_connection_stays(server: ModelServer) -> None:
    pool = ModelPool("pool", server).with_leased(3)
    pool.comes_back_after(MOVE_SECONDS)
    pool.release()
    server.clock.let_pass(3600)
    assert (len(pool.idle), pool.closing) == (1, 0)


# -- whose turn it is ------------------------------------------------------------------------------


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


def test_what_comes_free_goes_to_whoever_used_least_for_its_weight(server: ModelServer) -> None:
    last = ModelPool("last", server).with_leased(3)
    much, light, heavy = (
        ModelPool("much", server),
        ModelPool("light", server),
        ModelPool("heavy", server, weight=5),
    )
    for pool, used in ((much, 20.0), (light, 4.0), (heavy, 5.0)):
        pool.used(used)
        pool.ask()
    last.release()
    last.close_one()
    assert (heavy.connecting, light.connecting, much.connecting) == (1, 0, 0)


def test_of_those_who_never_used_anything_the_first_comes_first(server: ModelServer) -> None:
    last = ModelPool("last", server).with_leased(3)
    pools = [ModelPool(name, server) for name in "abc"]
    for pool in pools:
        pool.ask()
    for pool in pools:
        last.release()
        last.close_one()
        assert pool.connecting == 1


def test_a_raised_limit_is_divided_among_all_who_wait() -> None:
    server = ModelServer(0)
    first, second, third = (ModelPool(name, server) for name in ("first", "second", "third"))
    for pool in (first, second, third):
        pool.ask(5)
    server.set_limit(6)
    assert [pool.connecting for pool in (first, second, third)] == [2, 2, 2]


def test_who_waits_longer_than_a_round_has_most_turns_whatever_it_used() -> None:
    server = ModelServer(4, slots=1)
    last = ModelPool("last", server, max_size=4).with_leased(4)
    much = ModelPool("much", server)
    much.used(20.0)
    much.ask()
    server.clock.let_pass(ROUND * 1.1)
    small = [ModelPool(name, server) for name in "abc"]
    for pool in small:
        pool.ask()
    turns = []
    for _ in range(2):
        last.release()
        last.close_one()
        turns.append(next(pool for pool in (much, *small) if pool.connecting).name)
        next(pool for pool in (much, *small) if pool.connecting).connect()
    assert "much" in turns


# -- slices ----------------------------------------------------------------------------------------


def two_at_work(*, used: float = 5.0, by_other: float = 5.0) -> tuple[ModelPool, ModelPool]:
    """A holder with more work than its one connection, and another pool that waits for its turn."""
    server = ModelServer(1)
    holder, other = ModelPool("holder", server), ModelPool("other", server)
    holder.used(used)
    other.used(by_other)
    holder.with_leased(1)
    holder.ask(100)
    other.ask()
    return holder, other


def test_a_holder_with_work_keeps_its_connection_for_its_share_of_a_round() -> None:
    holder, other = two_at_work()
    clock, slice_ = holder.server.clock, ROUND / 2
    for _ in range(9):
        clock.let_pass(slice_ / 10)
        assert holder.release(), "it is not over"
    clock.let_pass(slice_ / 5)
    assert not holder.release()
    holder.close_one()
    assert other.connecting == 1


def test_a_weight_of_three_is_a_slice_three_times_as_long() -> None:
    server = ModelServer(1)
    holder, other = ModelPool("holder", server, weight=3), ModelPool("other", server)
    holder.used(20.0)
    other.used(5.0)
    holder.with_leased(1)
    holder.ask(100)
    other.ask()
    server.clock.let_pass(ROUND * 0.7)
    assert holder.release()
    server.clock.let_pass(ROUND * 0.1)
    assert not holder.release()


def test_a_small_claim_need_not_wait_for_the_end_of_a_slice() -> None:
    holder, _ = two_at_work(by_other=1.0)
    holder.server.clock.let_pass(MOVE_SECONDS / MOVING * 0.9)
    assert holder.release(), "what was opened just now pays first"
    holder.server.clock.let_pass(MOVE_SECONDS / MOVING * 0.2)
    assert not holder.release()


def test_a_newcomer_need_not_wait_for_what_was_decided_before_it_came() -> None:
    holder, _ = two_at_work()
    holder.server.clock.let_pass(MOVE_SECONDS / MOVING * 1.1)
    assert holder.release()
    assert holder.release(), "nothing has changed"
    ModelPool("newcomer", holder.server).ask()
    assert not holder.release()


def test_a_slice_is_long_enough_for_moves_to_take_no_more_than_their_share() -> None:
    server = ModelServer(1)
    holder = ModelPool("holder", server)
    holder.used(5.0)
    holder.with_leased(1)
    holder.ask(100)
    for number in range(200):
        other = ModelPool(str(number), server)
        other.used(5.0)
        other.ask()
    server.clock.let_pass(MOVE_SECONDS / MOVING * 0.9)
    assert holder.release()
    server.clock.let_pass(MOVE_SECONDS / MOVING * 0.2)
    assert not holder.release()


def test_a_tenant_with_connections_takes_none_from_one_that_used_less() -> None:
    server = ModelServer(3)
    light, flood = ModelPool("light", server), ModelPool("flood", server).with_leased(2)
    flood.used(10.0)
    light.with_leased(1)
    flood.ask(50)
    light.ask(50)
    server.clock.let_pass(10 * ROUND)
    assert light.release()


def test_a_holder_without_work_keeps_nothing_however_short_its_slice_was() -> None:
    server = ModelServer(1)
    holder = ModelPool("holder", server).with_leased(1)
    ModelPool("other", server).ask()
    assert holder.release()
    assert (len(holder.idle), holder.closing) == (0, 1)


def test_no_more_are_moved_at_a_time_than_a_share_while_holders_have_work() -> None:
    server = ModelServer(10)
    holder = ModelPool("holder", server).with_leased(10)
    holder.used(10.0)
    holder.ask(100)
    for number in range(10):
        ModelPool(str(number), server).ask()
    server.clock.let_pass(2 * ROUND)
    kept = [holder.release() for _ in range(10)]
    assert kept.count(False) == 10 * MOVING


def test_a_holder_loses_its_connection_only_when_a_slot_is_free() -> None:
    server = ModelServer(4, slots=1)
    holder, first, second = (ModelPool(name, server) for name in ("holder", "first", "second"))
    holder.used(10.0)
    holder.with_leased(3)
    first.ask()
    second.ask()
    holder.ask(10)
    assert (first.connecting, second.connecting) == (1, 0)
    server.clock.let_pass(0.9)
    assert holder.release(), "nothing could be opened in its place"
    first.connect()
    assert not holder.release()


def test_a_holder_keeps_what_is_of_its_min_size() -> None:
    server = ModelServer(2)
    holder = ModelPool("holder", server, min_size=2).with_leased(2)
    holder.used(10.0)
    holder.ask(10)
    ModelPool("other", server).ask()
    server.clock.let_pass(10 * ROUND)
    assert holder.release()


def test_a_holder_need_not_yield_when_enough_is_on_its_way(server: ModelServer) -> None:
    holder, poor = ModelPool("holder", server).with_leased(3), ModelPool("poor", server)
    holder.used(10.0)
    holder.ask(3)
    poor.ask()
    server.clock.let_pass(2 * ROUND)
    assert not holder.release()
    assert holder.release()


def test_nobody_yields_while_nothing_can_be_opened(server: ModelServer) -> None:
    holder, poor = ModelPool("holder", server).with_leased(3), ModelPool("poor", server)
    holder.used(10.0)
    holder.ask(3)
    poor.ask()
    server.clock.let_pass(2 * ROUND)
    server.budget.freeze(frozen=True)
    assert holder.release()


# -- openings --------------------------------------------------------------------------------------


def test_none_is_opened_for_a_caller_whom_a_running_lease_serves_in_time(
    server: ModelServer,
) -> None:
    pool = ModelPool("pool", server).with_leased(1)
    pool.leases_take(MOVE_SECONDS / 10)
    pool.ask(3)
    assert pool.connecting == 0
    pool.ask(40)
    assert pool.connecting > 0


def test_a_lease_that_does_not_come_back_in_time_is_not_waited_for_any_longer(
    server: ModelServer,
) -> None:
    pool = ModelPool("pool", server).with_leased(1)
    pool.leases_take(MOVE_SECONDS / 10)
    pool.ask()
    assert pool.connecting == 0
    server.clock.let_pass(MOVE_SECONDS + 0.01)
    assert pool.connecting == 1


# -- the limit, and connections that are gone ------------------------------------------------------


def test_lowering_the_limit_cuts_nothing_and_opens_nothing(server: ModelServer) -> None:
    pool = ModelPool("pool", server).with_leased(3)
    server.set_limit(1)
    assert (server.budget.limit, server.budget.used, len(pool.leased)) == (1, 3, 3)
    pool.ask()
    pool.lose()
    pool.close_one()
    assert (server.budget.used, pool.connecting) == (2, 0)


def test_above_a_lowered_limit_idle_connections_close_and_busy_ones_once_they_are_back() -> None:
    """Others have the rest of the budget, and wait for it, even when none of our pools waits."""
    server = ModelServer(5)
    kept = ModelPool("kept", server, min_size=1).with_idle(1)
    idle = ModelPool("idle", server).with_idle(1)
    busy = ModelPool("busy", server).with_leased(3)
    server.set_limit(3)
    assert (kept.closing, idle.closing, busy.closing) == (0, 1, 0)
    assert [busy.release(), busy.release()] == [False, True]
    assert (len(kept.idle), len(busy.idle), len(busy.leased)) == (1, 1, 1)
    while busy.closing or idle.closing:
        (idle if idle.closing else busy).close_one()
    assert server.budget.used == server.budget.limit


def test_nothing_closes_above_a_lowered_limit_while_nothing_can_be_opened() -> None:
    server = ModelServer(2)
    pool = ModelPool("pool", server).with_idle(1).with_leased(1)
    server.budget.freeze(frozen=True)
    server.set_limit(0)
    assert (pool.closing, pool.release()) == (0, True)


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


def test_the_policy_changes_nothing_by_itself(server: ModelServer) -> None:
    rich, poor = ModelPool("rich", server).with_idle(3), ModelPool("poor", server)
    server.budget.freeze(frozen=True)
    poor.ask()
    server.budget.freeze(frozen=False)
    for _ in range(2):
        actions = decide(poor, server.budget, server.clock.now)
        assert actions.take == (rich, rich.idle[0])
    assert (len(rich.idle), rich.closing) == (3, 0)


# -- what need not be dispatched -------------------------------------------------------------------


def test_nothing_comes_of_a_wait_that_changes_nothing(server: ModelServer) -> None:
    pool = ModelPool("pool", server, max_size=4).with_leased(1)
    pool.leases_take(MOVE_SECONDS / 10)

    def may_matter() -> bool:
        pool.callers.append(ModelWaiter(pool.tenant, pool.asked, server.clock.now))
        return server.policy_executor.awaits(pool, cast("Waiter", pool.callers[-1]))

    # The first wait must be noted; leases that end soon serve ten callers within a connect's time.
    assert [may_matter() for _ in range(11)] == [True, *[False] * 9, True]
    pool.callers.clear()
    pool.with_leased(3)
    assert not may_matter()
    pool.with_idle(1)
    assert may_matter()


def test_an_idle_connection_is_offered_when_it_is_no_longer_kept(server: ModelServer) -> None:
    kept, poor = ModelPool("kept", server).with_leased(3), ModelPool("poor", server)
    kept.comes_back_after(MOVE_SECONDS)
    poor.ask()
    kept._put_idle(kept._end_lease())
    server.policy_executor.rested(kept)
    assert kept.closing == 0
    server.clock.let_pass(2 * MOVE_SECONDS)
    assert kept.closing == 1
