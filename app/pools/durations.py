"""Everything that was ever measured of many tenants' waits, holds and connects together."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.domain.histogram import Histogram


@dataclass(slots=True, kw_only=True)
class Durations:
    """Histograms since the service started: they outlive pools and tenants, and never fall."""

    wait: Histogram = field(default_factory=Histogram)
    hold: Histogram = field(default_factory=Histogram)
    connect: Histogram = field(default_factory=Histogram)

    def merge(self, other: Durations) -> None:
        """Add everything that *other* counted."""
        self.wait.merge(other.wait)
        self.hold.merge(other.hold)
        self.connect.merge(other.connect)

    def keep_up_with(self, earlier: Durations) -> None:
        """Count nothing less often than *earlier* did."""
        self.wait.raise_to(earlier.wait)
        self.hold.raise_to(earlier.hold)
        self.connect.raise_to(earlier.connect)
