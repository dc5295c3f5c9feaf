"""What state a node is in, and when one that is silent has given its connections back.

A silent node may be dead, or cut off and at work. Its connections are given to others only once
Postgres has shown none of its back-ends for a while, and its agent opens none on its own after it
has been silent for so long. Both sides measure from a report: the agent from when it sent the last
one that was accepted, the service from when it accepted it, which is later.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# In seconds. An agent reports every second.
STALE_AFTER = 10.0
GONE_AFTER = 60.0
# For so long Postgres has shown no back-end of a node that is gone. A pooler keeps an unused
# connection for minutes, so one that has none for so long has had no work.
ABSENT_FOR = 15.0
# An agent without a connection to Postgres closes its entries when no report of so many seconds
# was accepted. Less than GONE_AFTER by more than two clocks drift apart, and a look takes.
FENCED_AFTER = 45.0


class NodeState(StrEnum):
    """What the service may expect of a node."""

    JOINING = "joining"
    """It has not applied a configuration yet."""

    READY = "ready"
    STALE = "stale"
    """It has not reported of late: it goes on inside its allotment, or is dead."""

    DRAINING = "draining"
    """An operator takes it out of service: once its clients have left it keeps no allotment."""

    GONE = "gone"
    """It was silent for long, and Postgres shows none of its back-ends: it holds nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContact:
    """What the service has heard of a node.

    Attributes:
        silence: seconds since it accepted a report; None: it never did.
        absence: seconds for which Postgres has shown none of its back-ends, on every server.
        configured: whether it has reported a configuration as applied.
        draining: whether an operator asked for that.
    """

    silence: float | None
    absence: float
    configured: bool
    draining: bool = False

    @property
    def state(self) -> NodeState:
        if self.silence is None:
            return NodeState.JOINING
        if self.silence >= GONE_AFTER and self.absence >= ABSENT_FOR:
            return NodeState.GONE
        if self.silence >= STALE_AFTER:
            return NodeState.STALE
        if self.draining:
            return NodeState.DRAINING
        return NodeState.READY if self.configured else NodeState.JOINING


def is_fenced(silence: float, connections: int) -> bool:
    """Whether an agent must open nothing before the service answers.

    Args:
        silence: seconds since it sent the last report that was accepted.
        connections: that its pooler has open, on every server.
    """
    return connections == 0 and silence >= FENCED_AFTER
