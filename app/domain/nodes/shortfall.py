"""Durations that a pooler does not count.

PgBouncer does not notice that a waiting client hangs up. Once it is that client's turn, the client
gets a connection, and its wait is counted, but not its duration, which includes the wait. So what
ended seems to have waited for longer than it lasted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """How far the durations of one entry's transactions are behind their waits.

    Attributes:
        seconds: at least 0; transactions under way may still make up for it.
        busy_seconds: how long connections were in use since it was 0.
    """

    seconds: float = 0.0
    busy_seconds: float = 0.0

    def updated(
        self, behind: float, busy_seconds: float, *, under_way: float
    ) -> tuple[Self, float]:
        """Add an interval; also return the durations that were not counted.

        Args:
            behind: by how much waits exceeded durations in it.
            busy_seconds: how long connections were in use in it.
            under_way: the most that transactions under way can make up for. If it is more, clients
                hung up; how long they held a connection is known by those in use.
        """
        seconds = self.seconds + behind
        if seconds <= 0.0:
            return type(self)(), 0.0
        busy = self.busy_seconds + busy_seconds
        if seconds <= under_way:
            return type(self)(seconds=seconds, busy_seconds=busy), 0.0
        return type(self)(), seconds + busy
