"""A simulation adds up, repeats itself, and drives the shipped advisor."""

from dataclasses import replace

import pytest

from app.domain.advisor import PoolObservation, PoolSizingRecommendation, ServerAdvisor
from app.domain.errors import InvalidInput
from app.simulator.baselines import StaticRule, clamped_advice
from app.simulator.load import single, zipf
from app.simulator.outcome import PRICES, p99_wait, regret
from app.simulator.rules import RuleName, best_static, simulate
from app.simulator.scenarios import ScenarioName, scenario
from app.simulator.simulated_pool import SimulatedPoolConfig
from app.simulator.simulation import Simulation, SimulationConfig
from app.simulator.tally import RequestTally
from app.simulator.workload import Arrivals, HoldTimes, Workload

WORLD = SimulationConfig(holds=HoldTimes(mean=0.15, cv=1.5), budget=60)
LOAD = single([5.0, 40.0, 90.0, 5.0], 30)


class RecordingRule:
    """Keeps what it is shown, and wants nothing."""

    name = "watching"

    def __init__(self) -> None:
        self.seen: list[PoolObservation] = []

    def initial_memory(self) -> None:
        """Return nothing to remember."""

    def advise(self, memory: None, seen: PoolObservation) -> tuple[PoolSizingRecommendation, None]:
        self.seen.append(seen)
        return clamped_advice(seen, seen.max_size, "This is a test."), memory


class Zigzag(StaticRule):
    """Wants 9, then 3, then 9 again."""

    def advise(self, memory: None, seen: PoolObservation) -> tuple[PoolSizingRecommendation, None]:
        return clamped_advice(seen, 3 if seen.max_size == 9 else 9, "This is a test."), memory


@pytest.mark.parametrize("rule", [rule for rule in RuleName if rule is not RuleName.BEST_STATIC])
def test_every_request_is_served_or_not_or_still_there(rule: RuleName) -> None:
    outcome = simulate(rule, LOAD, WORLD, size=6)
    asked = Workload(LOAD, WORLD.holds, WORLD.arrivals, WORLD.seed).before(120)
    ended = outcome.served + outcome.timeouts + outcome.rejected
    assert ended + outcome.in_flight == len(asked)
    assert 0 <= outcome.late <= outcome.leases <= len(asked)
    assert outcome.timeouts + outcome.rejected <= outcome.late


@pytest.mark.parametrize("rule", [RuleName.DEMAND, RuleName.HPA])
def test_the_same_seed_gives_the_same_outcome_and_another_one_another(rule: RuleName) -> None:
    load = zipf([60.0] * 4, 30, 5)
    first = simulate(rule, load, WORLD)
    assert simulate(rule, load, WORLD) == first
    assert simulate(rule, load, replace(WORLD, seed=2)) != first


def test_rules_meet_the_same_requests() -> None:
    light = single([10.0] * 4, 30)
    outcomes = [simulate(rule, light, WORLD, size=60) for rule in (RuleName.STATIC, RuleName.HPA)]
    first, second = outcomes
    assert first.leases == second.leases
    assert first.active_seconds == pytest.approx(second.active_seconds, rel=1e-3)


@pytest.mark.parametrize("rule", [RuleName.DEMAND, RuleName.ON_DEMAND, RuleName.INCREMENT])
def test_many_tenants_never_have_more_than_the_budget(rule: RuleName) -> None:
    world = replace(WORLD, budget=12)
    outcome = simulate(rule, zipf([120.0] * 4, 30, 20), world)
    assert outcome.most_connections <= 12
    assert outcome.avg_connections <= 12
    assert outcome.connection_seconds >= outcome.active_seconds


@pytest.mark.parametrize("rule", list(RuleName))
def test_no_load_costs_only_the_fixed_connections(rule: RuleName) -> None:
    outcome = simulate(rule, single([0.0] * 10, 60), WORLD, size=2)
    assert (outcome.leases, outcome.late, outcome.late_share) == (0, 0, 0.0)
    assert outcome.p99_wait_ms == 0.0
    assert outcome.goodput == 0.0
    held = {RuleName.STATIC: 2, RuleName.BEST_STATIC: 1}.get(rule, 0)
    assert outcome.avg_connections == pytest.approx(held)


def test_the_advisor_sees_what_happened_between_two_ticks() -> None:
    rule = RecordingRule()
    advisor = ServerAdvisor(rule)
    world = replace(WORLD, pool=replace(WORLD.pool, start_size=4))
    outcome = Simulation(LOAD, world, lambda _: advisor).run("watching")
    seen = rule.seen
    assert len(seen) == 24
    assert sum(each.acquired for each in seen) == outcome.leases - outcome.timeouts
    assert sum(each.released for each in seen) == outcome.served
    assert sum(each.wait.count for each in seen) == sum(each.acquired for each in seen)
    assert sum(each.hold.count for each in seen) == outcome.served
    still_waiting = seen[-1].metrics.waiting_requests
    assert sum(each.arrivals for each in seen) == outcome.leases + still_waiting
    waited = sum(2 ** ((b + 0.5) / 8) * n for each in seen for b, n in each.wait.counts.items())
    waiting_seconds = sum(each.mean_waiting * each.seconds for each in seen)
    assert waiting_seconds == pytest.approx(waited + 5 * outcome.timeouts, rel=0.03)
    for each in seen:
        assert each.mean_active <= each.mean_open + 1e-6 <= each.max_size + 2e-6
    busiest = max(seen, key=lambda each: each.mean_waiting)
    assert busiest.mean_active == pytest.approx(4, abs=0.1)
    assert busiest.mean_waiting > 10


def test_a_wait_across_a_tick_counts_in_both() -> None:
    rule = RecordingRule()
    advisor = ServerAdvisor(rule)
    world = replace(WORLD, holds=HoldTimes(mean=4.0, cv=0), pool=SimulatedPoolConfig(start_size=1))
    simulation = Simulation(single([0.0], 15), world, lambda _: advisor)
    simulation._server.run([(3.0, 0, 4.0), (4.0, 0, 4.0)], 4.5)
    simulation.run("watching")
    assert [each.mean_waiting * 5 for each in rule.seen] == pytest.approx([1.01, 2.01, 0], abs=0.01)
    assert [each.mean_active * 5 for each in rule.seen] == pytest.approx([1.99, 5, 1.01], abs=0.01)


def test_little_s_law_holds() -> None:
    outcome = simulate(RuleName.ON_DEMAND, single([50.0] * 20, 60), WORLD)
    assert outcome.active_seconds / outcome.seconds == pytest.approx(50 * 0.15, rel=0.03)


def test_p99_counts_those_who_did_not_wait_and_those_who_gave_up() -> None:
    tally = RequestTally(late_seconds=0.1)
    tally.acquired, tally.timeouts = 990, 10
    for wait in [2.0] * 5 + [5.0] * 10:
        tally.waits.record(wait)
    assert p99_wait([tally]) == pytest.approx(2.0, rel=0.05)
    tally.acquired = 2990
    assert p99_wait([tally]) == 0.0


def test_resizes_and_changes_of_direction_are_counted() -> None:
    advisor = ServerAdvisor(Zigzag())
    outcome = Simulation(single([1.0], 60), WORLD, lambda _: advisor).run("zigzag")
    assert (outcome.resizes, outcome.flips_per_hour) == (12, 11 * 60)


def test_a_static_pool_holds_its_size_and_needs_one_within_the_budget() -> None:
    assert simulate(RuleName.STATIC, LOAD, WORLD, size=7).avg_connections == pytest.approx(
        7, abs=0.01
    )
    for size in (None, 0, 61):
        with pytest.raises(InvalidInput, match="--size"):
            simulate(RuleName.STATIC, LOAD, WORLD, size=size)


def test_no_static_size_is_better_than_the_best_one() -> None:
    load, world = single([20.0] * 4, 30), replace(WORLD, budget=20)
    costs = {
        size: simulate(RuleName.STATIC, load, world, size=size).cost(10) for size in range(1, 21)
    }
    assert costs[best_static(load, world, price=10)] == min(costs.values())


@pytest.mark.parametrize("price", PRICES)
def test_the_clairvoyant_costs_less_than_reacting(price: int) -> None:
    load = single([5.0] * 4 + [80.0] * 4 + [5.0] * 8, 30)
    least = simulate(RuleName.CLAIRVOYANT, load, WORLD, price=price)
    for rule in (RuleName.HPA, RuleName.HYSTERESIS):
        found = regret(simulate(rule, load, WORLD), least, price)
        assert found is not None
        assert found > 0


def test_the_step_is_settled_when_the_size_comes_near_what_it_stays_at() -> None:
    case = scenario(ScenarioName.STEP, 0.15)
    outcome = simulate(RuleName.CLAIRVOYANT, case.load, WORLD)
    assert outcome.settling_s == 5.0
    assert simulate(RuleName.CLAIRVOYANT, single([10.0] * 20, 60), WORLD).settling_s is None


def test_bursts_make_more_callers_late() -> None:
    load = single([40.0] * 10, 60)
    calm = simulate(RuleName.STATIC, load, WORLD, size=10)
    bursty = simulate(RuleName.STATIC, load, replace(WORLD, arrivals=Arrivals.BURSTY), size=10)
    assert bursty.late > 3 * calm.late > 0


@pytest.mark.parametrize("name", list(ScenarioName))
def test_every_scenario_is_what_its_name_says(name: ScenarioName) -> None:
    case = scenario(name, 0.15)
    rates = case.load.total_rates
    assert min(rates) > 0 or name is ScenarioName.JOBS
    assert (
        max(rates)
        == {
            ScenarioName.STEADY: 60,
            ScenarioName.STEP: 100,
            ScenarioName.RAMP: 100,
            ScenarioName.BURST: 80,
            ScenarioName.DIURNAL: 60,
            ScenarioName.FLASH_CROWD: 150,
            ScenarioName.JOBS: 60,
            ScenarioName.OVERLOAD: pytest.approx(200, rel=0.01),
            ScenarioName.OVERLOAD_8: pytest.approx(35.2, rel=0.01),
            ScenarioName.OVERLOAD_20: pytest.approx(84, rel=0.01),
            ScenarioName.TIGHT_BUDGET: pytest.approx(200),
            ScenarioName.SLOW_CONNECTS: pytest.approx(60, rel=0.01),
            ScenarioName.SHORT_HOLDS: pytest.approx(200, rel=0.01),
            ScenarioName.HIGH_RATE: 400,
            ScenarioName.NOISY_NEIGHBOUR: pytest.approx(600),
        }[name]
    )
