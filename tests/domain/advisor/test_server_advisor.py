"""All pools of one server: each judged by itself, one budget, and one trial at a time."""

import re
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisor import (
    DemandRule,
    HysteresisRule,
    PoolObservation,
    PoolPressureMonitorConfig,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
    ServerAdvisor,
    TrialPhase,
    grown_within,
)
from app.domain.pool import PoolState
from tests.domain.advisor.observations import TICK, observations, seen


class FixedRule:
    """A rule that wants one connection per waiting caller, and counts its calls.

    The pools offer *load* erlangs per caller; without it the rule does not know their load.
    """

    name: ClassVar[str] = "wish"

    def __init__(self, trial: TrialPhase | None = None, *, load: float | None = None) -> None:
        self.trial = trial
        self.load = load

    def initial_memory(self) -> int:
        return 0

    def advise(self, memory: int, tick: PoolObservation) -> tuple[PoolSizingRecommendation, int]:
        wanted = max(round(tick.mean_waiting), 1)
        grows = wanted > tick.max_size
        action = ScalingAction.STABLE
        if wanted != tick.max_size:
            action = ScalingAction.SCALE_UP if grows else ScalingAction.SCALE_DOWN
        granted = PoolSizingRecommendation(
            action=action,
            current_size=tick.max_size,
            new_size=wanted,
            reason_code=ReasonCode.DEMAND_ABOVE_SIZE,
            reason=f"call {memory}",
            trial=self.trial if grows else None,
            offered_load=None if self.load is None else self.load * tick.mean_waiting,
        )
        return granted, memory + 1


def advisor_of(*, load: float = 1.0, **wanted: int) -> ServerAdvisor[int]:
    """Pools of 5 that want that many connections each, and offer *load* erlangs for each."""
    advisor = ServerAdvisor(FixedRule(load=load))
    for pool_id, wish in wanted.items():
        advisor.evaluate(pool_id, seen(5, active=5.0, waiting=float(wish)))
    return advisor


def sizes(advisor: ServerAdvisor[int], budget: int | None) -> dict[str, int]:
    return {pool_id: advice.new_size for pool_id, advice in advisor.allocate(budget)}


def test_what_the_budget_carries_is_granted() -> None:
    assert sizes(advisor_of(a=7, b=12), 20) == {"a": 7, "b": 12}


def test_an_unknown_budget_cuts_nothing() -> None:
    assert sizes(advisor_of(a=800, b=12), None) == {"a": 800, "b": 12}


def test_sizes_may_exceed_the_budget_as_long_as_the_load_does_not() -> None:
    assert sizes(advisor_of(load=0.5, a=18, b=20), 20) == {"a": 18, "b": 20}
    assert sizes(advisor_of(load=0.51, a=18, b=20), 20) == {"a": 18, "b": 9}


def test_callers_that_wait_are_no_load() -> None:
    """A cut makes callers wait: if these counted as load, it would justify itself."""
    advisor = ServerAdvisor(FixedRule(load=0.0))
    for pool_id in ("a", "b"):
        advisor.evaluate(pool_id, seen(5, active=5.0, waiting=90.0))
    assert sizes(advisor, 20) == {"a": 90, "b": 90}


def test_a_rule_that_knows_no_load_is_taken_to_offer_what_it_carries() -> None:
    advisor = ServerAdvisor(FixedRule())
    advisor.evaluate("a", seen(12, active=12.0, waiting=90.0))
    advisor.evaluate("b", seen(12, active=4.0, waiting=20.0))
    assert sizes(advisor, 20) == {"a": 90, "b": 20}
    advisor.evaluate("a", seen(16, active=16.0, waiting=90.0))
    advisor.evaluate("b", seen(12, active=4.0, waiting=20.0))
    assert sizes(advisor, 20) == {"a": 15, "b": 20}


def test_who_offers_most_is_cut_and_who_offers_little_is_not_at_all() -> None:
    assert sizes(advisor_of(a=4, b=6, c=60), 40) == {"a": 4, "b": 6, "c": 28}
    assert sizes(advisor_of(a=4, b=40, c=60), 40) == {"a": 4, "b": 17, "c": 17}


def test_a_cut_is_named() -> None:
    advisor = advisor_of(a=14, b=14)
    [(_, advice), _] = advisor.allocate(20)
    assert (advice.action, advice.new_size) == (ScalingAction.SCALE_UP, 9)
    assert advice.reason_code is ReasonCode.SERVER_BUDGET
    assert advice.reason == (
        "call 0; the server's budget of 20 connections grants 9 of the 14 wanted"
    )
    assert advice.wanted == 14
    assert advice.evidence == {"granted_size": 9, "budget": 20}


def demanding(*, lag: float = 0.0, **more: Any) -> dict[str, PoolSizingRecommendation]:
    """Two pools of 10 that offer 15 erlangs each, on a budget of 20."""
    advisor = ServerAdvisor(DemandRule())
    for at in (TICK, 2 * TICK):
        for pool_id in ("a", "b"):
            last = {"loop_lag_seconds": lag} | more if at > TICK else {}
            tick = seen(10, at=at, rate=150.0, waiting=5.0, **last)
            advisor.evaluate(pool_id, tick)
        advised = dict(advisor.allocate(20))
    return advised


def test_a_cut_below_the_present_size_gives_the_budget_as_its_reason() -> None:
    advice = demanding()["a"]
    assert (advice.action, advice.new_size) == (ScalingAction.SCALE_DOWN, 9)
    assert re.fullmatch(
        r"On average all pools together need \d\d connections of the server's budget of 20, and "
        r"this one \d\d\.\d: its fair share is 9",
        advice.reason,
    )


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"lag": 0.4}, ReasonCode.LOOP_LAG),
        ({"state": PoolState.PAUSED}, ReasonCode.NOT_READY),
        ({"connect_failures": 2}, ReasonCode.CONNECTS_FAILING),
    ],
)
def test_a_pool_of_which_nothing_can_be_said_is_not_cut(
    more: dict[str, Any], code: ReasonCode
) -> None:
    for advice in demanding(**more).values():
        assert (advice.action, advice.new_size) == (ScalingAction.STABLE, 10)
        assert advice.reason_code is code
        assert advice.reason.startswith("Keeping 10: ")


def test_a_pool_that_cannot_open_what_it_may_is_cut_because_the_budget_holds_it_back() -> None:
    advice = demanding(opened=5, mean_open=5.0, active=5.0)["a"]
    assert (advice.new_size, advice.reason_code) == (9, ReasonCode.SERVER_BUDGET)
    assert "Keeping" not in advice.reason


def used_up(*, active: float, wanted: int, others: int = 6) -> ServerAdvisor[int]:
    """Pools of 5 with *active* connections each; one wants that many, the others want 5."""
    advisor = ServerAdvisor(FixedRule(load=0.0))
    for name, waiting in [("a", wanted), *[(f"other-{n}", 5) for n in range(others)]]:
        seen_now = seen(5, active=active, waiting=float(waiting), mean_open=active)
        advisor.evaluate(name, seen_now)
    return advisor


def test_each_pool_has_its_fair_share_of_a_budget_that_is_used_up() -> None:
    assert used_up(active=3.2, wanted=10).used_up_share(23) == pytest.approx(23 / 7)
    assert used_up(active=2.9, wanted=10).used_up_share(23) is None
    assert used_up(active=5.0, wanted=10, others=1).used_up_share(11) == pytest.approx(6.0)


def test_a_budget_whose_connections_move_between_pools_is_used_up_while_callers_lack_them() -> None:
    shares = []
    for opened, waiting in [(3.2, 5.0), (3.2, 0.0), (2.9, 5.0)]:
        advisor = ServerAdvisor(FixedRule(load=0.0))
        for name in "abcdefg":
            advisor.evaluate(name, seen(5, active=2.8, waiting=waiting, mean_open=opened))
        shares.append(advisor.used_up_share(23))
    assert shares == [pytest.approx(23 / 7), None, None]


def test_a_budget_is_used_up_while_tenants_on_nodes_wait_for_their_turns() -> None:
    """The connections of one tenant close before those of the next one open."""
    advisor = used_up(active=1.0, wanted=10)
    assert advisor.used_up_share(23) is None
    assert advisor.used_up_share(23, nodes_lack=True) == pytest.approx(23 / 7)


def test_no_pool_grows_beyond_its_share_of_a_used_up_budget() -> None:
    [advice] = [advice for _, advice in advisor_of(load=0.0, a=10).allocate(None)]
    held = grown_within(advice, 3.3, 23)
    assert (held.action, held.new_size) == (ScalingAction.STABLE, 5)
    assert held.refuses_growth
    assert held.reason == (
        "call 0; but the server's budget of 23 connections is used up, and this pool's fair share "
        "is 3"
    )
    grown = grown_within(advice, 7.5, 23)
    assert (grown.action, grown.new_size) == (ScalingAction.SCALE_UP, 7)
    assert grown.reason_code is ReasonCode.SERVER_BUDGET
    assert grown_within(advice, 10.0, 23) == advice


def test_weights_decide_how_much_is_cut() -> None:
    advisor = ServerAdvisor(FixedRule(load=1.0))
    for pool_id, weight in (("light", 1), ("heavy", 3)):
        advisor.evaluate(pool_id, seen(5, active=5.0, waiting=90.0, weight=weight))
    assert sizes(advisor, 40) == {"light": 9, "heavy": 28}


def test_a_floor_is_kept_whatever_the_budget() -> None:
    advisor = ServerAdvisor(FixedRule(load=1.0))
    advisor.evaluate("a", seen(8, active=5.0, waiting=90.0, min_size=8))
    advisor.evaluate("b", seen(8, active=5.0, waiting=90.0))
    assert sizes(advisor, 10) == {"a": 8, "b": 4}


def test_many_cold_pools_are_not_cut_for_what_one_hot_pool_offers() -> None:
    demand = ServerAdvisor(DemandRule())
    for _ in range(2):
        for number in range(200):
            demand.evaluate(f"cold-{number}", seen(2, rate=1.0, hold=0.1))
        demand.evaluate("hot", seen(60, rate=500.0, hold=0.2))
        granted = {pool_id: advice.new_size for pool_id, advice in demand.allocate(100)}
    assert granted["cold-7"] >= 2
    assert 60 <= granted["hot"] <= 100 - 20


def test_a_small_gain_is_not_worth_a_change() -> None:
    advisor = ServerAdvisor(FixedRule(load=1.0))
    advisor.evaluate("a", seen(20, active=20.0, waiting=90.0))
    [(_, advice)] = advisor.allocate(23)
    assert (advice.action, advice.new_size) == (ScalingAction.STABLE, 20)
    assert advice.reason_code is ReasonCode.SERVER_BUDGET


def test_only_one_growth_is_on_trial_and_no_other_pool_grows_meanwhile() -> None:
    advisor = ServerAdvisor(FixedRule(TrialPhase.PROPOSED))
    for pool_id, waiting in (("a", 20.0), ("b", 50.0), ("c", 1.0)):
        advisor.evaluate(pool_id, seen(5, active=5.0, waiting=waiting))
    granted = dict(advisor.allocate(None))
    assert {pool_id: advice.new_size for pool_id, advice in granted.items()} == {
        "a": 5,
        "b": 50,
        "c": 1,
    }
    assert granted["a"].reason_code is ReasonCode.HELD_FOR_TRIAL
    assert granted["a"].action is ScalingAction.STABLE
    assert granted["a"].reason == "call 0; staying at 5 while the growth of b is on trial"


def test_a_running_trial_goes_before_a_proposed_one() -> None:
    advisor = ServerAdvisor(FixedRule(TrialPhase.RUNNING))
    advisor.evaluate("running", seen(5, active=5.0, waiting=9.0))
    advisor.rule = FixedRule(TrialPhase.PROPOSED)
    advisor.evaluate("proposed", seen(5, active=5.0, waiting=99.0))
    granted = dict(advisor.allocate(None))
    assert (granted["running"].new_size, granted["proposed"].new_size) == (9, 5)


def test_each_pool_has_a_memory_of_its_own_until_it_is_forgotten() -> None:
    advisor = ServerAdvisor(FixedRule())
    tick = seen(5)
    assert [advisor.evaluate("a", tick).reason for _ in range(2)] == ["call 0", "call 1"]
    assert advisor.evaluate("b", tick).reason == "call 0"
    advisor.forget("a")
    assert dict(advisor.allocate(None)).keys() == {"b"}
    assert advisor.evaluate("a", tick).reason == "call 0"


def test_a_round_ends_with_its_allocation() -> None:
    advisor = advisor_of(a=60, b=60)
    assert sizes(advisor, 20) == {"a": 9, "b": 9}
    assert sizes(advisor, 20) == {}
    advisor.evaluate("a", seen(5, active=5.0, waiting=18.0))
    assert sizes(advisor, 20) == {"a": 18}


def test_a_pool_evaluated_twice_counts_once() -> None:
    advisor = advisor_of(a=10, b=10)
    advisor.evaluate("a", seen(5, active=5.0, waiting=9.0))
    assert sizes(advisor, 20) == {"a": 9, "b": 10}


def test_hysteresis_is_driven_the_same_way() -> None:
    rule = HysteresisRule(PoolPressureMonitorConfig(samples_before_action=1))
    advisor = ServerAdvisor(rule)
    advice = advisor.evaluate("a", seen(20, active=20.0, waiting=8.0))
    assert (advice.action, advice.current_size, advice.new_size) == (ScalingAction.SCALE_UP, 20, 25)
    assert rule.name == "hysteresis"


rounds = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=25
)


def grants(pools: list[tuple[int, int, int]], budget: int) -> dict[str, int]:
    advisor = ServerAdvisor(FixedRule(load=1.0))
    for number, (wish, floor, weight) in enumerate(pools):
        tick = seen(max(floor, 1), waiting=float(wish), min_size=floor, weight=weight)
        advisor.evaluate(str(number), tick)
    return sizes(advisor, budget)


@given(rounds, st.integers(1, 150))
def test_granted_sizes_exceed_the_budget_only_by_min_sizes_and_one_connection_for_each_pool(
    pools: list[tuple[int, int, int]], budget: int
) -> None:
    granted = grants(pools, budget)
    beyond = [granted[str(number)] > max(floor, 1) for number, (_, floor, _) in enumerate(pools)]
    least = sum(max(floor, 1) for _, floor, _ in pools)
    assert sum(granted.values()) <= max(budget, least + budget * any(beyond))
    for number, (wish, floor, _) in enumerate(pools):
        assert max(1, min(floor, wish)) <= granted[str(number)] <= max(wish, floor)


@given(rounds, st.integers(1, 150))
def test_nobody_is_cut_who_offers_less_per_weight_than_another_gets(
    pools: list[tuple[int, int, int]], budget: int
) -> None:
    granted = grants(pools, budget)
    for number, (wish, _, weight) in enumerate(pools):
        if granted[str(number)] < wish:
            for other, (_, floor, other_weight) in enumerate(pools):
                if (got := granted[str(other)]) > max(floor, 1):
                    assert got / other_weight < wish / weight + 1e-9


@given(st.lists(observations(), min_size=1, max_size=8), st.none() | st.integers(1, 200))
def test_allocating_only_ever_takes_away(ticks: list[PoolObservation], budget: int | None) -> None:
    advisor = ServerAdvisor(DemandRule())
    for round_ in range(3):
        judged = {
            str(number): advisor.evaluate(str(number), replace(tick, at=round_ * TICK))
            for number, tick in enumerate(ticks)
        }
        for pool_id, advice in advisor.allocate(budget):
            tick = ticks[int(pool_id)]
            assert advice.new_size <= judged[pool_id].new_size
            assert advice.new_size >= min(tick.min_size, judged[pool_id].new_size)
            sign = (advice.new_size > tick.max_size) - (advice.new_size < tick.max_size)
            assert (
                advice.action
                is [ScalingAction.STABLE, ScalingAction.SCALE_UP, ScalingAction.SCALE_DOWN][sign]
            )


@pytest.mark.parametrize("budget", [None, 1, 7, 10_000])
def test_the_same_round_is_allocated_the_same(budget: int | None) -> None:
    first, second = advisor_of(a=9, b=30, c=2), advisor_of(a=9, b=30, c=2)
    assert list(first.allocate(budget)) == list(second.allocate(budget))
