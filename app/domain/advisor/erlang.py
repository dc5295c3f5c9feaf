"""How many connections a load needs: Erlang-C, corrected for how hold times vary.

A pool is a queue with c servers. With offered load a (arrivals a second x mean hold, in
erlangs) the share of callers that wait at all is Erlang's C, and of callers that wait longer
than t

    P(W > t) = C(c, a) * exp(-(c - a) * t / (S * (1 + cs2) / 2))

where S is the mean hold and cs2 its squared coefficient of variation. C comes from the
recursion of Erlang's B: B(k) = a B(k-1) / (k + a B(k-1)), C = B / (1 - a/c (1 - B)). Exact
for exponential holds (cs2 = 1); else the correction of Allen and Cunneen (Allen,
"Probability, Statistics, and Queueing Theory", 2nd ed., 5.6).
"""

from dataclasses import dataclass
from math import exp


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedLoad:
    """The load that callers offer to a pool.

    Attributes:
        erlangs: mean number of busy connections if nobody had to wait, at least 0.
        hold: mean seconds of a lease; above 0 if anything is offered.
        cv2: squared coefficient of variation of the holds, at least 0.
    """

    erlangs: float
    hold: float
    cv2: float = 1.0


def late_share(load: OfferedLoad, size: int, patience: float) -> float:
    """Share of callers (0..1) that wait longer than *patience* seconds for *size* connections.

    1.0 when the load exceeds the size: the queue then only grows.
    """
    blocked = 1.0
    for servers in range(1, size + 1):
        blocked = load.erlangs * blocked / (servers + load.erlangs * blocked)
    return _late(load, size, patience, blocked)


def smallest_size(load: OfferedLoad, patience: float, share: float, max_size: int) -> int:
    """The fewest connections with which at most *share* of callers wait over *patience* seconds.

    At least 1 if anything is offered, else 0; *max_size* if even that is too few.
    """
    offered = load.erlangs
    if offered <= 0.0:
        return 0
    blocked = 1.0
    for servers in range(1, max_size):
        blocked = offered * blocked / (servers + offered * blocked)
        if servers > offered and _late(load, servers, patience, blocked) <= share:
            return servers
    return max_size


def _late(load: OfferedLoad, size: int, patience: float, blocked: float) -> float:
    """P(W > patience), from Erlang's B of *size*."""
    spare = size - load.erlangs
    if load.erlangs <= 0.0:
        return 0.0
    if spare <= 0.0:
        return 1.0
    waits = blocked / (1.0 - load.erlangs / size * (1.0 - blocked))
    return waits * exp(-spare * patience / (load.hold * (1.0 + load.cv2) / 2.0))
