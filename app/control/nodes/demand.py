"""The connections of a server that a holder could use: the maximum of the last seconds."""

from collections import deque
from dataclasses import dataclass, field

# Seconds that it looks back.
_MEMORY = 10.0


@dataclass(slots=True, kw_only=True)
class Demand:
    """What a holder could use of a server: the recent maximum, and its present weight.

    Attributes:
        queued: its clients that wait for their tenant's turn.
    """

    weight: float = 0.0
    queued: int = 0
    _peaks: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, connections: int, weight: float, now: float, *, queued: int = 0) -> None:
        self.weight, self.queued = weight, queued
        self._peaks.append((now, connections))
        while self._peaks[0][0] < now - _MEMORY:
            self._peaks.popleft()

    @property
    def connections(self) -> int:
        return max((connections for _, connections in self._peaks), default=0)
