"""Runs rules by name on a load, and compares their costs with the clairvoyant's."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

from app.domain.advisor import (
    DemandConfig,
    DemandRule,
    HysteresisRule,
    PoolPressureMonitorConfig,
    ServerAdvisor,
    SizingRule,
)
from app.domain.errors import InvalidInput
from app.simulator.baselines import IncrementRule, StaticRule, UtilizationRule
from app.simulator.clairvoyant import ClairvoyantRule
from app.simulator.load import Load, TenantLoad
from app.simulator.outcome import SimulationResult
from app.simulator.simulation import AdvisorOf, Simulation, SimulationConfig

# The sizes with which the search for the best one starts.
_LADDER = (1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896)


class RuleName(StrEnum):
    """The rules that can be simulated."""

    DEMAND = "demand"
    """Included in the service: arrivals times hold time, corrected by measured waits."""

    HYSTERESIS = "hysteresis"
    """Included in the service: waiting callers and idle connections, several samples in a row."""

    STATIC = "static"
    """A constant size; a pool alone on its server opens and keeps all of it."""

    BEST_STATIC = "best-static"
    """The static size with the least cost on this very load, found by search."""

    ON_DEMAND = "on-demand"
    """No advice: each pool may open the whole budget, and closes idle connections."""

    HPA = "hpa"
    """Utilization of 70 %, like the Kubernetes horizontal autoscaler."""

    INCREMENT = "increment"
    """One more for each slow acquire, never fewer, like FlexyPool."""

    CLAIRVOYANT = "clairvoyant"
    """Knows the true rate until the next tick, and sizes for it."""


_SHIPPED: Mapping[RuleName, Callable[[SimulationConfig], SizingRule[Any]]] = {
    RuleName.DEMAND: lambda config: DemandRule(DemandConfig(patience_seconds=config.late)),
    RuleName.HYSTERESIS: lambda _: HysteresisRule(PoolPressureMonitorConfig(enabled=True)),
}


def simulate(
    rule: RuleName,
    load: Load,
    config: SimulationConfig,
    *,
    size: int | None = None,
    price: float | None = None,
    keep_history: bool = False,
) -> SimulationResult:
    """Run one rule on one load.

    Args:
        rule: the rule's name.
        load: the load of all tenants.
        config: everything else.
        size: the size of a static pool.
        price: the cost of a late request in connection-seconds. The clairvoyant uses it (without
            one, it allows at most 1 % over 50 ms), and so does the search for the best static size
            (without one, 100).
        keep_history: whether the result has every tick.

    Raises:
        InvalidInput: a static size is missing, or not between 1 and the budget.
    """
    if rule is RuleName.BEST_STATIC:
        size = best_static(load, config, price=100 if price is None else price)
    is_static = rule in (RuleName.STATIC, RuleName.BEST_STATIC)
    check_size(RuleName.STATIC if is_static else rule, size, config)
    if is_static and size is not None:
        config = replace(config, pool=replace(config.pool, start_size=size))
    elif rule is RuleName.ON_DEMAND:
        config = replace(config, pool=replace(config.pool, start_size=config.budget))
    is_held = is_static and len(load.tenants) == 1
    simulation = Simulation(
        load,
        config,
        _advisor_of(rule, load, config, price),
        fixed_size=size if is_held else None,
        keep_history=keep_history,
    )
    return simulation.run(rule.value)


def check_size(rule: RuleName, size: int | None, config: SimulationConfig) -> None:
    """Refuse a static pool without a valid size.

    Raises:
        InvalidInput: it is missing, or not between 1 and the budget.
    """
    if rule is RuleName.STATIC and (size is None or not 1 <= size <= config.budget):
        raise InvalidInput("A static pool needs a size (--size) between 1 and the budget.")


def best_static(load: Load, config: SimulationConfig, *, price: float) -> int:
    """Find the static size with the least cost on *load*: a ladder of sizes, then nearer ones."""
    costs: dict[int, float] = {}

    def cost(size: int) -> float:
        if size not in costs:
            costs[size] = simulate(RuleName.STATIC, load, config, size=size).cost(price)
        return costs[size]

    for rung in _LADDER:
        if rung <= config.budget:
            cost(rung)
    while True:
        best = min(costs, key=lambda size: (costs[size], size))
        known = sorted(costs)
        place = known.index(best)
        near = {
            (best + neighbour) // 2 if neighbour < best else (best + neighbour + 1) // 2
            for neighbour in known[max(0, place - 1) : place + 2]
        }
        fresh = near - costs.keys()
        if not fresh:
            return best
        for size in sorted(fresh):
            cost(size)


def _advisor_of(
    rule: RuleName, load: Load, config: SimulationConfig, price: float | None
) -> AdvisorOf:
    if rule is RuleName.CLAIRVOYANT:

        def clairvoyant(tenant: TenantLoad) -> ServerAdvisor[Any]:
            return ServerAdvisor(
                ClairvoyantRule(
                    tenant.rates,
                    load.bin_seconds,
                    config.holds,
                    late=config.late,
                    price=price,
                    knee=config.knee,
                )
            )

        return clairvoyant
    advisor: ServerAdvisor[Any] = ServerAdvisor(_rule(rule, config))
    return lambda _: advisor


def _rule(rule: RuleName, config: SimulationConfig) -> SizingRule[Any]:
    if rule in _SHIPPED:
        return _SHIPPED[rule](config)
    if rule is RuleName.HPA:
        return UtilizationRule()
    if rule is RuleName.INCREMENT:
        return IncrementRule(slow=config.late)
    return StaticRule()
