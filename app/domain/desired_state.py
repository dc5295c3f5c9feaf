"""Desired state: what operators want. The catalog stores it, and pools follow it.

A generation counts the changes of a row. It only grows, and a write that changes nothing keeps it.
The API shows it as the ETag.
"""

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
    """A tenant as declared, and its progress.

    Attributes:
        spec: what the operator declared.
        uid: marks its database objects. A later tenant of the same name has another uid, so it
            never gets its predecessor's data by accident.
        generation: grows with every change of the spec.
        provisioned_at: when its role and its schema or database were created; None before.
        deleting: it is being deleted, and its login may not be disabled yet.
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

    def check_not_deleting(self) -> None:
        """Refuse a change to it while it is being deleted.

        Raises:
            TenantDeleting
        """
        if self.deleting:
            raise TenantDeleting

    def check_usable(self) -> None:
        """Refuse work on its pool unless `is_usable`.

        Raises:
            TenantDeleting, NotProvisioned
        """
        self.check_not_deleting()
        if self.provisioned_at is None:
            raise NotProvisioned(f"Tenant {self.spec.id} has not been provisioned.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """When a pool was paused, and by whom."""

    since: datetime
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPool:
    """The desired state of a pool. A pool that was never changed has none and uses the defaults.

    Attributes:
        recycles: grows each time that nodes are to replace its connections; a node does it once for
            all that it missed.
    """

    pool_id: str
    size: PoolSize
    pause: Pause | None
    recycles: int = 0
    generation: int
    updated_at: datetime

    @property
    def paused(self) -> bool:
        """Whether it grants no leases."""
        return self.pause is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChange:
    """A change of a pool's desired state; None leaves a field as it is."""

    min_size: int | None = None
    max_size: int | None = None
    warmup_size: int | None = None
    paused: bool | None = None
    recycle_on_nodes: bool = False

    def apply_to(self, size: PoolSize) -> PoolSize:
        """*size* with this change.

        When only max_size is given, min_size and warmup_size shrink to fit.

        Raises:
            InvalidInput: the numbers do not fit together.
        """
        max_size = size.max_size if self.max_size is None else self.max_size
        min_size = min(size.min_size, max_size) if self.min_size is None else self.min_size
        warmup = min(size.warmup_size, max_size) if self.warmup_size is None else self.warmup_size
        return PoolSize(min_size=min_size, max_size=max_size, warmup_size=warmup)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordVersion:
    """The password version that a login role should have.

    Attributes:
        applied: whether Postgres has it for certain; until then it has this version or the one
            before.
    """

    server: str
    role: str
    version: int
    applied: bool


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
