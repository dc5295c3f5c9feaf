"""When an idle connection closes: it is stale, unused for too long, or not worth keeping."""

from app.pools.connection import PooledConnection
from app.pools.connections import Connections


def expired(
    connections: Connections,
    now: float,
    *,
    min_size: int,
    idle_timeout: float,
    surplus_age: float | None,
    warm_size: int,
) -> list[PooledConnection]:
    """Return the idle connections to close at *now*, in monotonic seconds.

    These are: broken, stale and too old ones; those unused for *idle_timeout* seconds, while more
    than *min_size* are left; and those opened *surplus_age* seconds ago (if given), while more than
    *warm_size* are left too. The least recently used ones come first.
    """
    due: list[PooledConnection] = []
    kept: list[PooledConnection] = []
    live = connections.live
    for each in connections.idle:
        is_unused = each.idle_since < now - idle_timeout and live > min_size
        if is_unused or not connections.is_current(each, now):
            due.append(each)
            live -= 1
        else:
            kept.append(each)
    if surplus_age is not None:
        spare = max(0, live - max(min_size, warm_size))
        due += [each for each in kept if each.opened_at < now - surplus_age][:spare]
    return due
