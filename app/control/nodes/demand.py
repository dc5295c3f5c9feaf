"""What a holder of connections could use of one server: the most of the last seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

# Seconds that it looks back.
_MEMORY = 10.0


@dataclass(slots=True, kw_only=True)
class Demand:
    """What a holder could use of one server: the most of some seconds, and its weight now."""

    weight: float = 0.0
    _peaks: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, connections: int, weight: float, now: float) -> None:
        self.weight = weight
        self._peaks.append((now, connections))
        while self._peaks[0][0] < now - _MEMORY:
            self._peaks.popleft()

    @property
    def connections(self) -> int:
        return max((connections for _, connections in self._peaks), default=0)
