"""How many connections a pool should open for its waiting callers."""

# Seconds of waiting for which no connection is opened: a quarter of the default limit of lateness.
SOON = 0.025
# If every connection was in use for this many seconds without a break, callers will wait again.
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

    No connection is opened for a caller that a running lease will serve within the time of a
    connect, or within `SOON`: on average, leased x time / hold leases end in that time. That may
    fail by chance, or because of one long lease. So once a caller has waited that long, at least
    one connection is opened. No caller waits longer than that time plus a connect, if there is
    room.

    Args:
        waiting: callers that wait.
        coming: connections being opened, or about to be idle.
        leased: connections in use.
        hold: how long leases usually last, seconds; None when unknown: then none is expected to
            end.
        connect: how long opening a connection usually takes, seconds; None when unknown.
        longest_wait: seconds that the first of them has waited.
        busy_for: seconds since a caller last found an idle connection. After `LASTING` seconds one
            is opened for each waiter. Otherwise callers that always come back would take turns on a
            few connections for ever, at a fraction of the speed.
    """
    if not hold or connect is None or busy_for >= LASTING:
        return max(0, waiting - coming)
    soon = max(connect, SOON)
    back = int(leased * soon / hold)
    at_least = 1 if waiting and not coming and longest_wait >= soon else 0
    return max(at_least, waiting - coming - back)
