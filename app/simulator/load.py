"""A load: how many requests per second each tenant sends, bin by bin."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLoad:
    """The load of one tenant.

    Attributes:
        name: name of the tenant and its pool; it also seeds its random numbers.
        rates: requests per second in each bin.
        weight: its relative share when connections are scarce.
        is_noisy: whether it harms the others on purpose; then it does not count as harmed.
    """

    name: str
    rates: Sequence[float]
    weight: int = 1
    is_noisy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load of all tenants of a server.

    Attributes:
        bin_seconds: how long each rate lasts, above 0.
        tenants: at least one; all with the same number of bins.

    Raises:
        InvalidInput: when these do not fit together.
    """

    bin_seconds: float
    tenants: Sequence[TenantLoad]

    def __post_init__(self) -> None:
        """Refuse a load without bins, or with different numbers of bins."""
        if not self.bin_seconds > 0:
            raise InvalidInput("A bin must be longer than 0 seconds.")
        if len({len(tenant.rates) for tenant in self.tenants}) != 1:
            raise InvalidInput("A load needs tenants, all with as many bins.")

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.bin_seconds * len(self.tenants[0].rates)

    @property
    def total_rates(self) -> list[float]:
        """Requests per second of all tenants together, bin by bin."""
        return [sum(rates) for rates in zip(*(t.rates for t in self.tenants), strict=True)]


def single(rates: Sequence[float], bin_seconds: float) -> Load:
    """The load of a single tenant on its server."""
    return Load(bin_seconds=bin_seconds, tenants=[TenantLoad(name="tenant", rates=rates)])


def zipf(rates: Sequence[float], bin_seconds: float, tenants: int) -> Load:
    """Divide *rates* among *tenants*: the n-th sends 1/n of what the first one sends."""
    total = sum(1 / rank for rank in range(1, tenants + 1))
    loads = [
        TenantLoad(name=f"tenant-{rank:03}", rates=[rate / rank / total for rate in rates])
        for rank in range(1, tenants + 1)
    ]
    return Load(bin_seconds=bin_seconds, tenants=loads)
