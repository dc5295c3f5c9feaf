"""What was counted over many tenants together; sums that never fall, whoever is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from app.pools.recorder import Recorder


@dataclass(slots=True, kw_only=True)
class Totals:
    """Sums of counters since the service started; those named `total_…` in seconds."""

    acquired: int = 0
    released: int = 0
    total_wait: float = 0.0
    total_hold: float = 0.0
    total_connect: float = 0.0
    timeouts: int = 0
    rejected: int = 0
    opened: int = 0
    closed: int = 0
    lost: int = 0
    connect_failures: int = 0
    health_check_failures: int = 0

    @classmethod
    def of(cls, recorder: Recorder) -> Totals:
        """What one recorder has counted."""
        totals = Totals()
        totals += recorder
        return totals

    def __iadd__(self, counted: Recorder | Totals) -> Self:
        """Add everything one recorder, or another sum, has counted."""
        self.acquired += counted.acquired
        self.released += counted.released
        self.total_wait += counted.total_wait
        self.total_hold += counted.total_hold
        self.total_connect += counted.total_connect
        self.timeouts += counted.timeouts
        self.rejected += counted.rejected
        self.opened += counted.opened
        self.closed += counted.closed
        self.lost += counted.lost
        self.connect_failures += counted.connect_failures
        self.health_check_failures += counted.health_check_failures
        return self
