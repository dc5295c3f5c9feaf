"""What a pool needed recently, in slices that expire one by one.

Sizes grow at once but shrink only to the most that the window needed, as in Kubernetes' autoscaler:
so a load that comes and goes does not move the size down and up again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from app.domain.advisor.lateness import Lateness

_SLICES = 20
_MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A part of the window.

    Attributes:
        start: monotonic seconds.
        needed: the most connections needed.
        size: the largest size in force.
        busy: connection-seconds in use.
        seconds: how long it was observed.
        events: callers seen.
        lateness: how many of them waited too long or got no connection.
    """

    start: float
    needed: int
    size: int
    busy: float
    seconds: float
    events: int
    lateness: Lateness = field(default_factory=Lateness)

    def merged(self, other: Slice) -> Slice:
        return Slice(
            start=self.start,
            needed=max(self.needed, other.needed),
            size=max(self.size, other.size),
            busy=self.busy + other.busy,
            seconds=self.seconds + other.seconds,
            events=self.events + other.events,
            lateness=self.lateness + other.lateness,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The last *span* seconds of one pool, oldest slice first."""

    slices: tuple[Slice, ...] = ()

    def with_slice(self, new: Slice, span: float) -> Window:
        """The window with *new* added and everything older than *span* seconds dropped."""
        slices, now = self.slices, new.start + new.seconds
        if slices and now <= slices[-1].start + span / _SLICES:
            return Window(slices=(*slices[:-1], slices[-1].merged(new)))
        first = 0
        while first < len(slices) and slices[first].start + slices[first].seconds < now - span:
            first += 1
        return Window(slices=(*slices[first:], new))

    @property
    def needed(self) -> int:
        """The most connections needed at any time."""
        return max((part.needed for part in self.slices), default=0)

    @property
    def events(self) -> int:
        """Callers seen."""
        return sum([part.events for part in self.slices])

    @property
    def lateness(self) -> Lateness:
        """The callers that waited too long or got no connection."""
        parts = [part.lateness for part in self.slices]
        return Lateness(
            late=sum([part.late for part in parts]), callers=sum([part.callers for part in parts])
        )

    @property
    def seconds(self) -> float:
        """How much of the time span was observed."""
        return sum([part.seconds for part in self.slices])

    @property
    def median_busy(self) -> float:
        """The number of connections that were busy half of the time."""
        return median(part.busy / part.seconds for part in self.slices) if self.slices else 0.0

    def largest_within_a_minute(self, now: float) -> int:
        """The largest size in force within the last minute."""
        return max(
            (part.size for part in self.slices if part.start + part.seconds > now - _MINUTE),
            default=0,
        )
