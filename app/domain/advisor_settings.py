"""The advisor's settings: which rule decides sizes, and how its recommendations are handled."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.domain.advisor import (
    DemandConfig,
    DemandRule,
    HysteresisRule,
    PoolPressureMonitorConfig,
    ServerAdvisor,
)
from app.domain.tenant import AdvisorMode


class AdvisorRule(StrEnum):
    """How sizes are decided."""

    DEMAND = "demand"
    """As many connections as the load needs."""

    HYSTERESIS = "hysteresis"
    """One step up or down after several samples in a row exceed a threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisorSettings:
    """How the advisor works for the whole service.

    Attributes:
        mode: how its recommendations are handled, unless a tenant has a mode of its own.
        hysteresis, demand: the configuration of each rule; kept while the other rule is in force.
        demand_interval_ms: milliseconds between two observations by the demand rule.
        generation: grows with every change.
    """

    rule: AdvisorRule = AdvisorRule.DEMAND
    mode: AdvisorMode
    hysteresis: PoolPressureMonitorConfig
    demand: DemandConfig = field(default_factory=DemandConfig)
    demand_interval_ms: int = 5_000
    generation: int = 0

    @property
    def interval(self) -> float:
        """Seconds between two observations by the rule in force."""
        if self.rule is AdvisorRule.DEMAND:
            return self.demand_interval_ms / 1000
        return self.hysteresis.tuning_interval_ms / 1000

    def advisor(self) -> ServerAdvisor[Any]:
        """Create an advisor with the rule in force."""
        if self.rule is AdvisorRule.DEMAND:
            return ServerAdvisor(DemandRule(self.demand))
        return ServerAdvisor(HysteresisRule(self.hysteresis))
