"""Desired state: what operators want, as the catalog keeps it and pools follow it.

A generation counts the changes of a row: it only grows, an identical write keeps it, and the
API shows it as the ETag.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.domain.advisor import (
    DemandConfig,
    DemandRule,
    HysteresisRule,
    PoolPressureMonitorConfig,
    ServerAdvisor,
)
from app.domain.advisor_mode import AdvisorMode
from app.domain.pool import PoolSize
from app.domain.tenant import TenantSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant as declared, and how far it has come.

    Attributes:
        spec: what the operator declared.
        uid: marks the database objects made for it; a later tenant of the same name has another,
            so it is never handed its predecessor's data by accident.
        generation: grows with every change of the spec.
        provisioned_at: when role, schema or database were made; None before.
        deleting: being deleted; its login is not yet known to be disabled.
    """

    spec: TenantSpec
    uid: UUID
    generation: int
    provisioned_at: datetime | None
    deleting: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPool:
    """What somebody asked of a pool; a pool nobody asked anything of has none and uses defaults."""

    pool_id: str
    size: PoolSize
    paused: bool
    generation: int
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialVersion:
    """Which version of its password a login role is to have.

    Attributes:
        applied: whether Postgres is known to have it; until then it has this one or the one before.
    """

    server: str
    role: str
    version: int
    applied: bool


class AdvisorRule(StrEnum):
    """How sizes are judged."""

    DEMAND = "demand"
    """As many connections as the load needs."""

    HYSTERESIS = "hysteresis"
    """A step up or down when a threshold was exceeded several samples in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisorSettings:
    """How the advisor works for the whole service.

    Attributes:
        rule: the rule in force.
        mode: what becomes of its advice, unless a tenant says otherwise.
        hysteresis, demand: the knobs of each rule, kept while another is in force.
        demand_interval_ms: milliseconds between two looks of the demand rule.
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
        """Seconds between two looks of the rule in force."""
        if self.rule is AdvisorRule.DEMAND:
            return self.demand_interval_ms / 1000
        return self.hysteresis.tuning_interval_ms / 1000

    def advisor(self) -> ServerAdvisor[Any]:
        """A fresh advisor by the rule in force."""
        if self.rule is AdvisorRule.DEMAND:
            return ServerAdvisor(DemandRule(self.demand))
        return ServerAdvisor(HysteresisRule(self.hysteresis))
