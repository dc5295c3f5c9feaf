"""Whether connections that were fine still are, although the admin contact failed."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from time import monotonic
from typing import Protocol

from app.domain.errors import ConnectFailed, TenantLoginFailed, Unavailable
from app.pools.policy_executor import ScheduledConnections, ScheduledPool

# So many pools, those that were served last, are asked.
_WITNESSES = 5
_PAUSE = 0.05


class AttachedConnections(ScheduledConnections, Protocol):
    """What a server needs to know of a pool's connections."""

    @property
    def is_in_use(self) -> bool:
        """Whether a connection not known to be gone is leased, or being checked."""

    async def ping(self) -> bool:
        """Test the idle connection used last; whether there is one, and it answers."""


class AttachedPool(ScheduledPool, Protocol):
    """What a server needs to know of its pools."""

    last_answer_at: float
    """When a lease last came back clean, in monotonic seconds."""

    @property
    def connections(self) -> AttachedConnections:
        """Its connections."""

    def server_lost(self, error: Unavailable) -> None:
        """Fail those who wait: nothing can be opened for now."""

    def server_back(self) -> None:
        """Try again to open what is missing, at once."""


async def any_still_work(
    pools: AbstractSet[AttachedPool], error: Unavailable, *, since: float, within: float
) -> bool:
    """Whether a connection of *pools* works, while the admin contact fails with *error*.

    An idle one is asked; a lease that came back clean *since* that monotonic time is an answer
    too, and is waited for *within* seconds, as long as a login may take. One that does not come
    back counts only where the failure says nothing about the server, or is its own answer.
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
            # Who refuses the admin has answered.
            is_refusal = isinstance(error.__cause__, TenantLoginFailed)
            return is_busy and (is_refusal or isinstance(error, ConnectFailed))
        await asyncio.sleep(_PAUSE)
