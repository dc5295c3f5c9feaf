"""Liveness: whether working connections still work, although the admin connection failed."""

import asyncio
from collections.abc import Set as AbstractSet
from time import monotonic
from typing import Protocol

from app.domain.errors import ConnectFailed, TenantLoginFailed, Unavailable
from app.pools.scheduling.scheduled_pool import ScheduledConnections, ScheduledPool

# How many pools are asked: those served most recently.
_WITNESSES = 5
_PAUSE = 0.05


class AttachedConnections(ScheduledConnections, Protocol):
    """The part of a pool's connections that a server uses."""

    @property
    def is_in_use(self) -> bool:
        """Whether a connection not known to be broken is leased, or being checked."""

    async def ping(self) -> bool:
        """Test the most recently used idle connection.

        Return whether there is one and it answers.
        """


class AttachedPool(ScheduledPool, Protocol):
    """The part of a pool that a server uses."""

    last_answer_at: float
    """When a lease last ended cleanly, in monotonic seconds."""

    @property
    def connections(self) -> AttachedConnections:
        """Its connections."""

    def server_lost(self, error: Unavailable) -> None:
        """Fail the waiters: nothing can be opened for now."""

    def server_back(self) -> None:
        """Open missing connections again, without a pause."""


async def any_still_work(
    pools: AbstractSet[AttachedPool], error: Unavailable, *, since: float, within: float
) -> bool:
    """Whether a connection of *pools* works, while the admin connection fails with *error*.

    An idle connection is tested. A lease that ended cleanly since the monotonic time *since* is an
    answer too; wait for one up to *within* seconds, as long as a login may take. A lease that does
    not end counts as working only if *error* says nothing about the server, or is the server's own
    answer.
    """
    deadline = monotonic() + within
    while True:
        latest = sorted(pools, key=lambda pool: pool.last_answer_at, reverse=True)
        witnesses = [pool for pool in latest if pool.connections.idle][:_WITNESSES]
        if any(await asyncio.gather(*(pool.connections.ping() for pool in witnesses))):
            return True
        if any(pool.last_answer_at > since for pool in pools):
            return True
        is_busy = any(pool.connections.is_in_use for pool in pools)
        if not is_busy or monotonic() >= deadline:
            # A server that refused the admin has answered.
            is_refusal = isinstance(error.__cause__, TenantLoginFailed)
            return is_busy and (is_refusal or isinstance(error, ConnectFailed))
        await asyncio.sleep(_PAUSE)
