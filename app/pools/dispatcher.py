"""Carries out what `dispatch` decides: the only place where the policy's actions happen.

Whatever changes in a pool or a budget ends in `run`. An action only starts something or wakes a
caller, so `run` never re-enters itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from app.pools.budget import ConnectionBudget
from app.pools.connection import PooledConnection
from app.pools.dispatch import RECENT, PoolConnections, PoolFacts, dispatch, keeps, shortfall
from app.pools.waiters import Waiter


class Clock(Protocol):
    """What the dispatcher needs of an event loop."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object:
        """Call back in *delay* seconds."""


class DispatchedConnections(PoolConnections, Protocol):
    """What the dispatcher does to a pool's connections."""

    def begin_open(self, *, first: bool) -> None:
        """Start to open a connection; a *first* one logs in before others."""

    def evict_idle(self, connection: PooledConnection) -> None:
        """Start to close the idle *connection*."""


class DispatchedPool(PoolFacts, Protocol):
    """What the dispatcher does to a pool."""

    @property
    def connections(self) -> DispatchedConnections:
        """Its connections."""

    def serve(self, waiter: Waiter, connection: PooledConnection) -> None:
        """Lend the idle *connection* to *waiter*."""


P = TypeVar("P", bound=DispatchedPool)


class Dispatcher(Generic[P]):
    """Hands over, opens and closes the connections of one server's pools."""

    def __init__(self, budget: ConnectionBudget[P], clock: Clock | None = None) -> None:
        self.budget = budget
        self._clock = clock
        self._will_recheck = False

    def run(self, pool: P | None = None) -> None:
        """Do what follows from a change in *pool*, or in the budget only."""
        budget, now = self.budget, self._time.time()
        if pool is not None:
            self._note_demand(pool)
        while actions := dispatch(pool, budget, now):
            for owner, connection in actions.close:
                owner.connections.evict_idle(connection)
                self._note_demand(owner)
            if actions.serve and pool is not None:
                pool.serve(*actions.serve)
                self._note_demand(pool)
            if actions.open:
                opening, first = actions.open
                opening.connections.begin_open(first=first)
                budget.note_served(opening)
                self._note_demand(opening)
        if actions.recheck and not self._will_recheck:
            # No event tells when the reserve becomes smaller.
            self._will_recheck = True
            self._time.call_later(RECENT, self._recheck)

    def keeps(self, pool: P) -> bool:
        """Whether *pool* keeps a connection that has just come back."""
        return not self.budget.unsatisfied or keeps(pool, self.budget, self._time.time())

    def _note_demand(self, pool: P) -> None:
        self.budget.note_demand(pool, unsatisfied=shortfall(pool, self.budget) > 0)

    def _recheck(self) -> None:
        self._will_recheck = False
        self.run()

    @property
    def _time(self) -> Clock:
        return self._clock or asyncio.get_running_loop()
