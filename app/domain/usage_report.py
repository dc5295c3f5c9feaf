"""Who held connections for how long over a period: the report's values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.domain.period import Period

USAGE_GROUP_PATTERN = r"^(tenant|pool|server|label:[^:]+)$"


class Grouping(StrEnum):
    """What a report has one line for; tenants count to what they belong to now."""

    TENANT = "tenant"
    POOL = "pool"
    SERVER = "server"
    LABEL = "label"


class UsageOrder(StrEnum):
    """Sort keys of groups; a minus puts the largest first."""

    LONGEST = "-connection_seconds"
    SHORTEST = "connection_seconds"
    MOST_LEASES = "-leases"
    FEWEST_LEASES = "leases"
    MOST_TIMEOUTS = "-timeouts"
    FEWEST_TIMEOUTS = "timeouts"

    @property
    def measure(self) -> str:
        """The field that is compared."""
        return self.value.lstrip("-")

    @property
    def sign(self) -> int:
        """What makes the measure grow along the list."""
        return -1 if self.startswith("-") else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSums:
    """What some tenants used together.

    Attributes:
        connection_seconds: how long they held connections, times connections.
        leases, timeouts: leases begun, and those not obtained in time.
    """

    connection_seconds: float = 0.0
    leases: int = 0
    timeouts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageGroup(UsageSums):
    """A line of a report.

    Attributes:
        group: None for tenants that were deleted, and for those without the label.
        tenants: how many tenants there are in it.
        place: what orders groups that used the same.
    """

    group: str | None
    tenants: int
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """Some groups, the number of all groups, and what they used together."""

    period: Period
    groups: tuple[UsageGroup, ...] = ()
    group_count: int = 0
    total: UsageSums = UsageSums()
