"""How long a tenant keeps a connection while others wait: the numbers of sharing by time.

A *move* gives a connection to another pool. It closes the old connection and logs in again, which
costs many times as much as a lease. So tenants take turns by time, like processes on a processor:
each keeps a connection for a slice, which is its share of a round over all tenants that want one.
No slice is so short that moves take too much of the time. The pools and the simulator both decide
by these numbers.
"""

from math import ceil

# In a round of so many seconds, each tenant that wants a connection should get one once.
ROUND = 2.0
# A round lasts at most so many times as long as callers wait, so that they get their turn before
# they give up. It lasts longer than `ROUND` if its slices would cost too much: see `SLICE_MOVES`.
LONGEST_ROUND = 0.65
# A slice lasts as long as so many moves, if `LONGEST_ROUND` allows that. A move takes the processor
# time of ten leases or more: 400 tenants on 20 connections, whose callers wait for 10 s, get some
# 7 % more leases than in rounds of 2 s, and more equal ones.
SLICE_MOVES = 10
# Maximum share of the connections, and of each connection's time, that moves may take while the
# pools that lose connections have work for them.
MOVING = 0.4
# A connection is kept for a tenant that is expected back for at most as long as so many moves. A
# move also takes processor time from all others, so avoiding it is worth more than its own time.
KEPT_MOVES = 4
# Seconds after which a lease counts for 1/e. This spans several rounds, which last some seconds: in
# rounds of 4 s, weights of 1 : 3 give shares of 1 : 2.87; with 10 s they would give 1 : 2.63.
MEMORY = 30.0
# A running lease counts as so many connections, in addition to its use so far. With 0, a tenant
# without history would get all connections that become free at about the same time; with 1, weights
# would hardly matter between tenants that hold one or two connections.
RUNNING = 0.25


def shortest_slice(move_seconds: float, relative_weight: float = 1.0) -> float:
    """The minimum seconds of a slice of a tenant with so many times the mean weight.

    Moves take at most the share `MOVING` of all slices together, and at most half of any one.
    """
    return max(move_seconds, move_seconds / MOVING * relative_weight)


def slice_seconds(
    due: float, move_seconds: float, relative_weight: float = 1.0, *, acquire_timeout: float
) -> float:
    """Seconds that a tenant may keep a connection while others wait.

    A slice is the tenant's fair share of a round. If moves would cost too much it is longer, up to
    its share of the longest round, and it is never shorter than `shortest_slice`.

    Args:
        due: the tenant's fair share, in connections.
        move_seconds: the duration of a move.
        relative_weight: the tenant's weight ÷ the mean weight.
        acquire_timeout: how many seconds callers wait.
    """
    part, longest = min(1.0, due), LONGEST_ROUND * acquire_timeout
    worthwhile = max(ROUND * part, SLICE_MOVES * move_seconds * relative_weight)
    return max(min(worthwhile, longest * part), shortest_slice(move_seconds, relative_weight))


def most_moves(limit: int) -> int:
    """How many of *limit* connections may move at the same time while their pools have work."""
    return max(1, ceil(limit * MOVING))


def longest_kept(move_seconds: float) -> float:
    """The maximum seconds that an idle connection is kept for a tenant that is expected back."""
    return move_seconds * KEPT_MOVES
