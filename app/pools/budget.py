"""One server's connections: how many there may be and are, and which pools want more.

Only counts and measures; what follows from them says the scheduling policy. The sum of open,
connecting and closing connections never exceeds the limit, unless the limit was lowered.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from app.pools.claims import Claims
from app.pools.connect_limiter import ConnectLimiter
from app.pools.recent_use import Contenders
from app.pools.smoothed import Smoothed
from app.pools.spare_order import SpareOrder

P = TypeVar("P")


class ConnectionBudget(Generic[P]):
    """At most *limit* connections on one server, shared by its pools.

    Attributes:
        limit: most connections of all pools together, 0 until the server was asked.
        used: connections open, connecting or closing.
        closing: those of them that close.
        is_frozen: whether nothing is taken from any pool, since nothing can be opened instead.
        connect_slots: limit the connections that are being opened, or closed for others.
        claims: what pools want more than they have.
        unsatisfied: the pools that do.
        contenders: the tenants that hold or await a connection.
        spare: the pools with idle connections, which others may get.
        move_seconds: what it takes to give a connection to another pool: to close one and to open
            one; 0 until it was measured.
    """

    def __init__(self, limit: int = 0, connect_slots: ConnectLimiter | None = None) -> None:
        self.limit = limit
        self.used = 0
        self.closing = 0
        self.is_frozen = False
        self.connect_slots = connect_slots or ConnectLimiter()
        self.claims: Claims[P] = Claims()
        self.unsatisfied = self.claims.by_pool
        self.contenders = Contenders()
        self.spare: SpareOrder[P] = SpareOrder()
        self.move_seconds = 0.0
        self._overrun = Smoothed()
        self._connect = Smoothed()
        self._close = Smoothed()

    def __repr__(self) -> str:
        return (
            f"<ConnectionBudget: {self.used} of {self.limit}, {self.closing} closing, "
            f"{len(self.unsatisfied)} pools unsatisfied>"
        )

    @property
    def free(self) -> int:
        """Places that are left; below 0 after the limit was lowered."""
        return self.limit - self.used

    @property
    def promised(self) -> int:
        """Places that are free, or will be without anybody's further doing."""
        return self.limit - self.used + self.closing

    @property
    def is_over(self) -> bool:
        """Whether more connections stay open than there may be: the limit was lowered."""
        return self.used - self.closing > self.limit

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no connection left to take."""
        return self.used >= self.limit

    @property
    def is_contended(self) -> bool:
        """Whether some pool wants a connection and could not have it."""
        return bool(self.unsatisfied)

    @property
    def connect_seconds(self) -> float:
        """What it takes to open a connection; 0 until it was measured."""
        return self._connect.mean

    @property
    def overrun(self) -> float:
        """By how much connections stayed longer than for their slices, of late."""
        return self._overrun.mean

    @property
    def fair_share(self) -> float:
        """How many connections are due to each unit of weight; inf if nobody asks."""
        return self.contenders.fair_share(self.limit)

    @property
    def mean_weight(self) -> float:
        """The mean weight of those who ask; 1 if nobody does."""
        contenders = self.contenders
        return contenders.weight / contenders.count if contenders.count else 1.0

    def set_limit(self, limit: int) -> None:
        """Change the limit; above it no connection is opened, and idle ones close."""
        self.limit = limit

    def freeze(self, *, frozen: bool) -> None:
        """Take nothing from any pool while nothing can be opened in its place."""
        self.is_frozen = frozen

    def begin_open(self) -> None:
        """Count a connection that is being opened."""
        self.used += 1

    def give_back(self) -> None:
        """A counted connection is not there (any more)."""
        self.used -= 1

    def begin_close(self) -> None:
        """A counted connection is being closed."""
        self.closing += 1

    def end_close(self) -> None:
        """A connection that was being closed is gone from the server."""
        self.closing -= 1
        self.used -= 1

    def note_connect(self, seconds: float) -> None:
        """A connection was opened in so many *seconds*."""
        self._connect.note(seconds)
        self.move_seconds = self._connect.mean + self._close.mean

    def note_close(self, seconds: float) -> None:
        """A connection was closed in so many *seconds*."""
        self._close.note(seconds)
        self.move_seconds = self._connect.mean + self._close.mean

    def note_overrun(self, seconds: float) -> None:
        """A connection moved on so many *seconds* after the end of its slice."""
        self._overrun.note(seconds)

    def forget(self, pool: P) -> None:
        """*pool* has closed."""
        self.claims.drop(pool)
        self.spare.drop(pool)
