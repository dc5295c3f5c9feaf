"""Connections of a server's budget that are reserved for nodes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReservation:
    """What nodes have of a server's budget, and what pools may use beside them.

    Attributes:
        owed: connections that nodes can have, and back-ends that nobody explains.
        kept: those that nodes keep whatever pools want.
        most_here: the most that pools may use; None: all that is not owed.
        lack: whether clients of nodes wait for connections of the budget.
        leaves_min_size: whether the min_size of all pools fits beside `kept`.
    """

    owed: int = 0
    kept: int = 0
    most_here: int | None = None
    lack: bool = False
    leaves_min_size: bool = True


NO_RESERVATION = NodeReservation()
