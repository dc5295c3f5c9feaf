"""For how long a tenant keeps a connection while others wait: the numbers of sharing by time.

To give a connection to another pool, a *move*, costs a closing and a login, many times what a lease
costs. So tenants take turns by time, as processes do on a processor: each keeps a connection for a
slice, its share of a round over all who want one, and never for less than moves may cost. The pools
decide by these numbers, and the simulator does, too.
"""

from __future__ import annotations

from math import ceil

# Seconds in which everybody who wants a connection should have one once: callers wait 5 by default.
ROUND = 2.0
# So many seconds may a round last where slices of a shorter one would cost too much: see
# `SLICE_MOVES`. Callers still have their turn before they give up.
LONGEST_ROUND = 3.5
# A slice lasts so many moves' time if `LONGEST_ROUND` allows that. A move takes the processor time
# of ten leases and more: 400 tenants on 20 connections get a quarter more than in rounds of 2 s.
SLICE_MOVES = 8
# The share of the connections, and of the time of each, that moves may take while the pools that
# lose one have work for it.
MOVING = 0.4
# How many moves' time a connection is kept for a tenant that is expected back. A move also takes
# processor time from all others, so that it is worth more than its own time.
KEPT_MOVES = 4
# Seconds after which a lease counts for 1/e. Several rounds over all that wait, which last seconds:
# in rounds of 4 s, weights of 1 : 3 come out as 1 : 2.87; with 10 s they would as 1 : 2.63.
MEMORY = 30.0
# A running lease counts for so many connections beyond its use so far. Otherwise a tenant without
# history would get all connections that come free within a moment; if it were 1, weights would
# hardly count between tenants that hold one or two.
RUNNING = 0.25


def shortest_slice(move_seconds: float, relative_weight: float = 1.0) -> float:
    """Seconds that a slice lasts at least, of a tenant of so many times the mean weight.

    Moves take no more than the share `MOVING` of the slices of all, and no more than half of any.
    """
    return max(move_seconds, move_seconds / MOVING * relative_weight)


def slice_seconds(due: float, move_seconds: float, relative_weight: float = 1.0) -> float:
    """Seconds that a tenant may keep a connection while others wait.

    Its fair share of a round; longer if moves would cost too much, up to its share of the longest
    round; never shorter than its `shortest_slice`.

    Args:
        due: connections that are its fair share.
        move_seconds: what a move takes.
        relative_weight: its weight ÷ the mean weight.
    """
    part = min(1.0, due)
    worthwhile = min(SLICE_MOVES * move_seconds * relative_weight, LONGEST_ROUND * part)
    return max(ROUND * part, worthwhile, shortest_slice(move_seconds, relative_weight))


def most_moves(limit: int) -> int:
    """How many of *limit* connections may be moved at a time while their pools have work."""
    return max(1, ceil(limit * MOVING))


def longest_kept(move_seconds: float) -> float:
    """Seconds that an idle connection is kept at most for a tenant that is expected back."""
    return move_seconds * KEPT_MOVES
