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
from app.domain.errors import NotProvisioned, TenantDeleting
from app.domain.pool import PoolSize
from app.domain.tenant import AdvisorMode, TenantSpec


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

    @property
    def is_usable(self) -> bool:
        """Whether its database objects exist and it is not being deleted."""
        return self.provisioned_at is not None and not self.deleting

    def check_usable(self) -> None:
        """Refuse work on its pool unless `is_usable`.

        Raises:
            TenantDeleting, NotProvisioned
        """
        if self.deleting:
            raise TenantDeleting
        if self.provisioned_at is None:
            raise NotProvisioned(f"Tenant {self.spec.id} has not been provisioned.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Since when a pool is paused, and the name of who paused it."""

    since: datetime
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPool:
    """What is desired of a pool; one that was never changed has none and uses the defaults."""

    pool_id: str
    size: PoolSize
    pause: Pause | None
    generation: int
    updated_at: datetime

    @property
    def paused(self) -> bool:
        """Whether it hands out no lease."""
        return self.pause is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChange:
    """A change of what is desired of a pool; None leaves a field as it is."""

    min_size: int | None = None
    max_size: int | None = None
    warmup_size: int | None = None
    paused: bool | None = None

    def apply_to(self, size: PoolSize) -> PoolSize:
        """*size* with this change.

        A smaller max_size alone takes min_size and warmup_size down with it.

        Raises:
            InvalidInput: the numbers do not fit together.
        """
        max_size = size.max_size if self.max_size is None else self.max_size
        min_size = min(size.min_size, max_size) if self.min_size is None else self.min_size
        warmup = min(size.warmup_size, max_size) if self.warmup_size is None else self.warmup_size
        return PoolSize(min_size=min_size, max_size=max_size, warmup_size=warmup)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordVersion:
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
        mode: how its recommendations are handled, unless a tenant has a mode of its own.
        hysteresis, demand: the configuration of each rule, kept while another is in force.
        demand_interval_ms: milliseconds between two observations of the demand rule.
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
        """Seconds between two observations of the rule in force."""
        if self.rule is AdvisorRule.DEMAND:
            return self.demand_interval_ms / 1000
        return self.hysteresis.tuning_interval_ms / 1000

    def advisor(self) -> ServerAdvisor[Any]:
        """A fresh advisor by the rule in force."""
        if self.rule is AdvisorRule.DEMAND:
            return ServerAdvisor(DemandRule(self.demand))
        return ServerAdvisor(HysteresisRule(self.hysteresis))
