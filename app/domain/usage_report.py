"""Usage reports: who held connections, and for how long, over a period."""

from dataclasses import dataclass
from enum import StrEnum

from app.domain.period import Period

USAGE_GROUP_PATTERN = r"^(tenant|pool|server|label:[^:]+)$"


class Grouping(StrEnum):
    """What a report groups tenants by; it uses their present attributes."""

    TENANT = "tenant"
    POOL = "pool"
    SERVER = "server"
    LABEL = "label"


class UsageOrder(StrEnum):
    """Sort keys of groups; a minus sorts the largest first."""

    LONGEST = "-connection_seconds"
    SHORTEST = "connection_seconds"
    MOST_LEASES = "-leases"
    FEWEST_LEASES = "leases"
    MOST_TIMEOUTS = "-timeouts"
    FEWEST_TIMEOUTS = "timeouts"

    @property
    def measure(self) -> str:
        """The field to sort by."""
        return self.value.lstrip("-")

    @property
    def sign(self) -> int:
        """The factor that makes the measure ascend along the list."""
        return -1 if self.startswith("-") else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSums:
    """The usage of some tenants, summed up.

    Attributes:
        connection_seconds: connection-seconds that they held.
        leases, timeouts: leases granted, and callers that timed out.
    """

    connection_seconds: float = 0.0
    leases: int = 0
    timeouts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageGroup(UsageSums):
    """A line of a report.

    Attributes:
        group: None for tenants that were deleted, and for those without the label.
        tenants: number of tenants in it.
        place: orders groups with equal usage.
    """

    group: str | None
    tenants: int
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """Some groups, the number of all groups, and their total usage."""

    period: Period
    groups: tuple[UsageGroup, ...] = ()
    group_count: int = 0
    total: UsageSums = UsageSums()
