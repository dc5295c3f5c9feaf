"""How many connections a pool should open for the callers that wait."""

from __future__ import annotations

# A wait of so many seconds is not worth a connection: a quarter of what is late by default.
SOON = 0.025
# Where every connection was in use for so many seconds on end, callers wait again and again.
LASTING = 0.25


def openings_wanted(
    waiting: int,
    coming: int,
    leased: int,
    *,
    hold: float | None,
    connect: float | None,
    longest_wait: float,
    busy_for: float,
) -> int:
    """Connections to open now for *waiting* callers, beyond those *coming*.

    None is opened for a caller whom a running lease will serve within the time of a connect, or
    within `SOON`: of *leased* ones, leased x time / hold end in that time on average. Chance, or
    one long lease, may disappoint: as soon as a caller has waited for so long, at least one
    connection is coming. So no caller waits for longer than that and a connect, if there is room.

    Args:
        waiting: callers that wait.
        coming: connections being opened, or about to be idle.
        leased: connections in use.
        hold: how long leases usually last, seconds; None when unknown: nothing is expected back.
        connect: how long opening a connection usually takes, seconds; None when unknown, likewise.
        longest_wait: seconds for which the first of them has waited.
        busy_for: seconds since a caller found an idle connection. After `LASTING` seconds each
            waiter gets one: callers that always come back would take turns on few connections for
            ever, at a fraction of the speed.
    """
    if not hold or connect is None or busy_for >= LASTING:
        return max(0, waiting - coming)
    soon = max(connect, SOON)
    back = int(leased * soon / hold)
    at_least = 1 if waiting and not coming and longest_wait >= soon else 0
    return max(at_least, waiting - coming - back)
