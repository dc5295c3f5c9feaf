"""A node's state, and when the connections of a silent node count as returned.

A silent node may be dead, or cut off but working. Its connections are given to others only once
Postgres has shown none of its back-ends for a while. By then its agent opens none, because it has
been silent for so long. Both sides measure from the last accepted report: the agent from when it
sent it, the service from when it accepted it, which is later.
"""

from enum import StrEnum

# In seconds. An agent reports every second.
STALE_AFTER = 10.0
GONE_AFTER = 60.0
# Before a node is gone, Postgres must have shown none of its back-ends for this long. A pooler
# keeps unused connections for minutes, so a node without any has had no work for this long.
ABSENT_FOR = 15.0
# An agent without connections to Postgres closes its entries if no report was accepted for this
# many seconds. It is below GONE_AFTER by more than the drift of two clocks and the time of a look.
FENCED_AFTER = 45.0
# In milliseconds. Within this time Postgres notices, even during a statement, that the pooler was
# killed, or closed the connection of a client that hung up: before the agent counts it as gone.
CHECK_INTERVAL_MS = 50


class NodeState(StrEnum):
    """A node's state, as the service sees it."""

    JOINING = "joining"
    """It has not applied a configuration yet."""

    READY = "ready"
    STALE = "stale"
    """It has not reported recently: it keeps working inside its allotment, or is dead."""

    DRAINING = "draining"
    """An operator takes it out of service: once its clients have left, it has no allotment."""

    GONE = "gone"
    """It was silent for long and Postgres shows none of its back-ends: it holds no connections."""


def node_state(
    *, silence: float | None, absence: float, configured: bool, draining: bool = False
) -> NodeState:
    """The state of a node by the service's contact with it.

    Args:
        silence: seconds since the service accepted a report; None: never.
        absence: seconds for which no server has shown a back-end of it.
        configured: whether it has reported a configuration as applied.
        draining: whether an operator drains it.
    """
    if silence is None:
        return NodeState.JOINING
    if silence >= GONE_AFTER and absence >= ABSENT_FOR:
        return NodeState.GONE
    if silence >= STALE_AFTER:
        return NodeState.STALE
    if draining:
        return NodeState.DRAINING
    return NodeState.READY if configured else NodeState.JOINING


def is_fenced(silence: float, connections: int) -> bool:
    """Whether an agent must open no connection before the service answers.

    Args:
        silence: seconds since it sent the last report that was accepted.
        connections: open connections of its pooler, on all servers.
    """
    return connections == 0 and silence >= FENCED_AFTER
