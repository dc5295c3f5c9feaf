"""The knee: how much longer leases take, the more of them a server runs at the same time."""

from dataclasses import dataclass

from app.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Knee:
    """Gunther's universal scalability law, X(c) = c / (1 + s(c-1) + k c(c-1)), for hold times.

    Throughput peaks at *connections* and falls beyond that. In this model, a lease keeps the hold
    time of the concurrency at its start.

    Attributes:
        connections: the concurrency with the highest throughput, sqrt((1 - s) / k), above 1.
        contention: s, the share of the work that cannot be done in parallel, 0..1.

    Raises:
        InvalidInput: for values outside these ranges.
    """

    connections: float
    contention: float = 0.002

    def __post_init__(self) -> None:
        if not self.connections > 1:
            raise InvalidInput("A knee needs more than 1 connection.")
        if not 0 <= self.contention < 1:
            raise InvalidInput("The knee's contention must be at least 0 and below 1.")

    def stretch(self, active: int) -> float:
        """How many times longer a lease takes if *active* leases run."""
        coherency = (1 - self.contention) / self.connections**2  # the law's k
        return 1 + (active - 1) * (self.contention + coherency * active)
